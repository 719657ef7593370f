"""The whole agent of a device that joins a fleet late, with few labels: real runner, real trainer, a small centre."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_client.installed import HeadChoice
from edge_client.trainer import shared_head
from edge_protocol import messages as m
from tests.edge_client.device_rig import DeviceRig, device_config, image_pack
from tests.fakes.small_centre import artifact_files

LABELS, WITHIN_S = 8, 280


@pytest.mark.timeout(900)
def test_a_newcomer_serves_its_class_mix_on_the_newest_release_and_answers_its_round(tmp_path: Path) -> None:
    """In a fleet at release and round 5 its first release is that one, under the shared head with its own biases."""
    few = tmp_path / "few"
    few.mkdir()
    config = device_config(tmp_path, labels={"commissioning": str(image_pack(few, LABELS))})
    rig = DeviceRig(config, trainer=())
    rig.centre.release(5, {"nano": artifact_files()})
    rig.centre.call(5, 5)
    rig.until(lambda: rig.agent.inference.bundle, "a first release", within_s=WITHIN_S)
    rig.until(lambda: rig.centre.of(m.KnowledgeReport), "report", within_s=WITHIN_S)
    (report,) = rig.centre.of(m.KnowledgeReport)
    assert (report.round, report.release, report.examples) == (5, 5, LABELS)
    rig.until(lambda: rig.agent.inference.bundle and rig.agent.inference.bundle.head, "a head", within_s=WITHIN_S)
    bundle = rig.agent.inference.bundle
    assert bundle is not None
    assert bundle.head is not None
    shared = shared_head(artifact_files().weights)
    np.testing.assert_array_equal(bundle.head.weight, shared.weight)
    assert not np.allclose(bundle.head.bias, shared.bias, atol=0.05)
    choice = msgspec.json.decode((tmp_path / "state/vehicle/heads/5.json").read_bytes(), type=HeadChoice)
    assert (choice.chosen, choice.head, choice.n_train) == ("personal", "bias", LABELS)
    rig.close()
