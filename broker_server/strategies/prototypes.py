"""What every rule that shares prototypes is: class means of devices in, shared ones out. Owns checks, no rule.

Some hundred numbers a device, so the newest of each device are kept: a second message replaces the first, and the order
of arrival does not matter, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from edge_models.local_settings import LocalSettings
from edge_models.prototypes import Prototypes
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import DeviceId
from edge_protocol.task import FEATURES

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

PULL = 10.0
"""Weight of the pull in a device's loss: what the authors of FedTGP run FedProto and their own rule with."""
MAX_COUNT = 10_000_000
MAX_FEATURE = 1e4
"""No feature of a sane student is larger; one that is would take a mean with it."""


@dataclass(frozen=True, eq=False, slots=True)
class ClassMeans:
    """What a device sent: (G,) int64 classes, ascending; (G, K) float32 means; (G,) int64 counts behind them."""

    classes: I8
    means: F4
    counts: I8


class PrototypeSharing(ABC):
    """A rule that fuses prototypes, across architectures; one object serves all rounds.

    Args:
        outputs: C, number of classes of the task.
        features: K, width of the features.
        pull: weight of the pull in the devices' loss.
    """

    def __init__(self, outputs: int, features: int = FEATURES, pull: float = PULL) -> None:
        self.outputs = outputs
        self.features = features
        self.pull = pull
        self._newest: dict[DeviceId, ClassMeans] = {}

    def phases(self, settings: LocalSettings) -> tuple[LocalSettings, ...]:
        """What a device trains before it sends its class means: one phase, pulled to the shared prototypes."""
        return (msgspec.structs.replace(settings, prototype=self.pull),)

    def __len__(self) -> int:
        return len(self._newest)

    def add(self, device: DeviceId, prototypes: Prototypes, counts: I8) -> None:
        """Take a device's class means in place of those it sent before.

        Args:
            device: whose they are.
            prototypes: means (C, K) and the classes held.
            counts: (C,) int64, what each mean counts: samples behind it, as published, or what the server thinks it
                worth; those of classes not held do not matter.

        Raises:
            RemoteProtocolError: `reason` is ``wrong-shape``, ``wrong-counts`` or ``not-finite``; the message names
                the device and the class.
        """
        shapes = (prototypes.means.shape, prototypes.held.shape, counts.shape)
        if shapes != ((self.outputs, self.features), (self.outputs,), (self.outputs,)):
            raise RemoteProtocolError(
                "wrong-shape",
                f"{device} sent prototypes, held classes and counts of shapes {', '.join(map(str, shapes))}, "
                f"not ({self.outputs}, {self.features}), ({self.outputs},) and ({self.outputs},)",
            )
        classes = np.flatnonzero(prototypes.held).astype(np.int64)
        sent = ClassMeans(classes, prototypes.means[classes].astype(np.float32), counts[classes].astype(np.int64))
        if wrong := classes[(sent.counts < 1) | (sent.counts > MAX_COUNT)].tolist():
            raise RemoteProtocolError("wrong-counts", f"{device} sent a count of class {wrong[0]} not 1 to {MAX_COUNT}")
        if wrong := classes[~(np.abs(sent.means) <= MAX_FEATURE).all(axis=1)].tolist():
            raise RemoteProtocolError(
                "not-finite", f"{device} sent a prototype of class {wrong[0]} with NaN or beyond ±{MAX_FEATURE:g}"
            )
        self._newest[device] = sent

    def newest(self) -> Iterator[ClassMeans]:
        """What each device sent last, in the order of the devices' names."""
        return (self._newest[device] for device in sorted(self._newest))

    def shared(self, means: F4) -> Prototypes:
        """Prototypes of the classes that any device has sent, from means (C, K)."""
        held = np.zeros(self.outputs, np.uint8)
        for sent in self.newest():
            held[sent.classes] = 1
        return Prototypes(np.asarray(means * held[:, None], np.float32), held)

    @abstractmethod
    def result(self) -> Prototypes:
        """The shared prototypes, of the classes that any device has sent."""
