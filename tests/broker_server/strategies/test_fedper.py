"""Averaging of trunks."""

from __future__ import annotations

import numpy as np
import pytest

from broker_server.strategies.fedper import FedPer
from edge_models.local_settings import LocalSettings
from edge_models.students import build_student
from edge_models.students.arrays import arrays_of, with_arrays
from edge_models.tasks import load_task
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import DeviceId

SPEC = load_task("vehicle")


def test_heads_stay_on_their_devices() -> None:
    """A round of two students changes the trunk, and each device's head is its own before and after."""
    one, other = (build_student(SPEC, "nano", seed) for seed in (1, 2))
    rule = FedPer(arrays_of(one))
    for name, student in (("a", one), ("b", other)):
        rule.add(DeviceId(name), rule.part(arrays_of(student)), 10)
    result = rule.result()
    assert set(arrays_of(one)) - set(result) == {"head.weight", "head.bias"}
    after = arrays_of(with_arrays(other, result))
    np.testing.assert_array_equal(after["head.weight"], arrays_of(other)["head.weight"])
    name = next(name for name in result if name.endswith("conv.weight"))
    np.testing.assert_allclose(after[name], (arrays_of(one)[name] + arrays_of(other)[name]) / 2, rtol=1e-5, atol=1e-7)


def test_a_head_that_was_sent_is_refused() -> None:
    """A whole state names the head that should not have left its device."""
    state = arrays_of(build_student(SPEC, "nano"))
    with pytest.raises(RemoteProtocolError, match=r"sent 'head\.bias'") as caught:
        FedPer(state).add(DeviceId("a"), state, 1)
    assert caught.value.reason == "wrong-names"


def test_trunk_and_head_train_together() -> None:
    """One phase with nothing frozen."""
    assert [phase.frozen for phase in FedPer({}).phases(LocalSettings())] == ["nothing"]
