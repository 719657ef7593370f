"""Whether a variant may be shipped: numeric parity with the FP32 file, and what the task loses; owns no file."""

from __future__ import annotations

from math import inf, log10
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from devices.runners.onnx_file import OnnxFile
from edge_models.samples import Samples
from edge_models.tasks import plugin_of
from edge_protocol.errors import DataError, IncompatibleError
from edge_protocol.task import TaskSpec

F4 = npt.NDArray[np.float32]
_BATCH = 64


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant has to keep.

    Attributes:
        sqnr_db: least signal over difference of the logits, in decibels.
        agreement: least share of samples with the same class.
        loss: most that the task's headline may lose: points of accuracy / 100, or share of an error.
    """

    sqnr_db: float = 15.0
    agreement: Annotated[float, Meta(ge=0, le=1)] = 0.95
    loss: float = 0.005


class Gate(msgspec.Struct, frozen=True):
    """What was measured.

    Attributes:
        samples: compared.
        max_abs, mean_abs: difference of the logits.
        sqnr_db: signal over difference of the logits; None: no difference at all.
        agreement: share of samples with the same class; None for forecasts.
        headline: name of the task's score.
        before, after: that score.
        loss: how much worse, as in `Limits`; negative: better.
        problems: limits that were not kept.
    """

    samples: int
    max_abs: float
    mean_abs: float
    sqnr_db: float | None
    agreement: float | None
    headline: str
    before: float
    after: float
    loss: float
    problems: tuple[str, ...]


def judge(spec: TaskSpec, before: bytes, after: bytes, x: F4, samples: Samples, limits: Limits) -> Gate:
    """Compare a variant with the FP32 file on labelled samples that it was not calibrated on.

    Args:
        spec: the task.
        before: the FP32 file.
        after: the variant.
        x: (N, *shape) float32, `samples` as the student takes them.
        samples: with targets.
        limits: what it has to keep.

    Raises:
        DataError: no sample is labelled.
    """
    logits, given = answers(before, x), answers(after, x)
    plugin = plugin_of(spec)
    scores = [plugin.score(spec, one, samples.targets, samples.scale)[plugin.headline] for one in (logits, given)]
    worse = scores[0] - scores[1] if plugin.higher_is_better else scores[1] / scores[0] - 1 if scores[0] else inf
    agreement = None
    if spec.kind == "classify":
        agreement = float((logits.argmax(axis=1) == given.argmax(axis=1)).mean())
    noise = sqnr(logits, given)
    problems = []
    if not noise >= limits.sqnr_db:
        problems.append(f"SQNR {noise:.1f} dB, at least {limits.sqnr_db:g}")
    if agreement is not None and agreement < limits.agreement:
        problems.append(f"agreement {agreement:.1%}, at least {limits.agreement:.1%}")
    if not worse <= limits.loss:
        problems.append(f"{plugin.headline} {scores[0]:.4g} to {scores[1]:.4g}, loss at most {limits.loss:g}")
    error = np.abs(logits - given)
    return Gate(
        len(x),
        float(error.max()),
        float(error.mean()),
        None if noise == inf else noise,
        agreement,
        plugin.headline,
        scores[0],
        scores[1],
        worse,
        tuple(problems),
    )


def sqnr(reference: F4, given: F4) -> float:
    """Signal over difference in decibels: 10 log10(Σ reference² / Σ (given - reference)²); inf without a difference."""
    signal = float((reference.astype(np.float64) ** 2).sum())
    noise = float(((given.astype(np.float64) - reference) ** 2).sum())
    if not np.isfinite(noise):
        return -inf
    return inf if noise == 0 else 10 * log10(max(signal, 1e-300) / noise)


def answers(model: bytes, x: F4) -> F4:
    """Logits (N, outputs) of an exported student for x (N, *shape) float32, N ≥ 1.

    Raises:
        DataError: no sample.
        IncompatibleError: it takes other inputs or gives no logits.
    """
    if not len(x):
        raise DataError("no sample to compare on: give a pack with some")
    with OnnxFile(model) as loaded:
        if [value.name for value in loaded.session.get_outputs()][1:] != ["logits"]:
            raise IncompatibleError("this file does not give features and logits: it is no exported student")
        try:
            parts = [loaded.infer({"input": x[at : at + _BATCH]})[1] for at in range(0, len(x), _BATCH)]
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise IncompatibleError(f"the samples do not fit this student: {str(error).splitlines()[0]}") from error
    return np.concatenate(parts).astype(np.float32)
