"""How a device trains a whole student on its own samples, as plain data: rules of the server choose it. No torch."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class LocalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One phase of local training; a rule may ask for several, one after the other.

    Attributes:
        epochs: passes over the device's own samples, or over the public ones when it has none of its own.
        max_steps: of the optimiser, over all epochs.
        batch: samples in a step.
        learning_rate: of AdamW, constant, for rounds follow each other.
        weight_decay: of AdamW.
        proximal: mu of mu/2 · |weights - centre|² (FedProx, Li et al. 2020; Ditto, Li et al. 2021); 0 for none.
        prototype: weight of the mean squared distance between features and their class's prototype (FedProto, Tan et
            al. 2022); 0 for none.
        soft: weight of the loss towards soft labels, where there are any.
        temperature: T of that loss.
        frozen: part that stays as it is, its batch statistics included.
        augment: whether own and public samples are varied.
        seed: of everything random.
    """

    epochs: Annotated[int, Meta(ge=1)] = 2
    max_steps: Annotated[int, Meta(ge=1)] = 2000
    batch: Annotated[int, Meta(ge=2)] = 32
    learning_rate: Annotated[float, Meta(gt=0)] = 2e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 1e-2
    proximal: Annotated[float, Meta(ge=0)] = 0.0
    prototype: Annotated[float, Meta(ge=0)] = 0.0
    soft: Annotated[float, Meta(ge=0)] = 1.0
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    frozen: Literal["nothing", "trunk", "head"] = "nothing"
    augment: bool = True
    seed: int = 0
