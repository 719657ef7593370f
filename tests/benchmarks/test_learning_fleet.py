"""How the benchmark's cameras get their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.learning.fleet import OWN_TEST, deal_world
from devices.packs import ImagePack, open_pack


def test_a_camera_is_judged_on_its_own_classes_in_its_own_proportions(real_data: Path) -> None:
    """Each test holds held-out vehicles of the classes that its camera sees, about as often as it sees them."""
    pack = open_pack(real_data / "vehicle6_64_jpeg.npz")
    assert isinstance(pack, ImagePack)
    world = deal_world(pack, devices=4, alpha=0.5, seed=0)
    for own, test in zip(world.devices, world.own_tests, strict=True):
        seen, asked = (np.bincount(each.targets, minlength=6) / len(each) for each in (own, test))
        assert len(test) == OWN_TEST
        assert not asked[seen == 0].any()
        assert np.abs(seen - asked).max() < 0.15
