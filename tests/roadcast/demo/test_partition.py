"""Data is found, dealt out, written down, and configurations name it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from broker_server.config import read_config
from devices.packs import ImagePack, SeriesPack, open_pack, save_pack
from edge_client.build import read_root
from edge_client.config import DeviceConfig
from edge_protocol.config import load_config
from edge_protocol.errors import DataError
from edge_protocol.trust import commissioned
from roadcast.demo import partition as part
from roadcast.demo.configs import Pace, Places, write_configs
from roadcast.demo.fleet import FLEET
from roadcast.demo.image_shares import ImageSizes
from roadcast.demo.series_shares import SeriesSizes
from roadcast.simulated.roadside import CLIP, SPEED_PACK, VEHICLE_PACK, simulate_roadside

SMALL = part.Sizes(
    ImageSizes(anchors=30, validation=30, proxies=30, test_conditions=1),
    SeriesSizes(anchors=1, proxies=1, validation=1, device=1, test=1, anchor_rows=60, proxy_rows=40),
)


@pytest.fixture(scope="module")
def roadside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated roadside."""
    folder = tmp_path_factory.mktemp("roadside")
    simulate_roadside(folder, seed=1, per_class=70, days=2, roads=2, detectors=4)
    return folder


def test_real_data_is_preferred_and_named(real_data: Path, tmp_path: Path) -> None:
    """A folder with the real packs is used as it is, with the count that a person made of its clip."""
    found = part.find_data(real_data, tmp_path, seed=0)
    assert found.real
    assert found.images == (real_data / part.REAL[0]).resolve()
    assert "--data" in found.origin
    assert found.clip_truth


def test_a_named_folder_of_simulated_packs_is_used(roadside: Path, tmp_path: Path) -> None:
    """Packs that `roadcast data simulate` wrote serve as well, and are not called real."""
    found = part.find_data(roadside, tmp_path, seed=0)
    assert (found.real, found.series) == (False, roadside / SPEED_PACK)
    assert re.fullmatch(r"\d+ forward, \d+ backward", found.clip_truth)


def test_a_clip_whose_card_is_missing_has_no_truth(roadside: Path, tmp_path: Path) -> None:
    """What nobody knows is not invented."""
    for name in (VEHICLE_PACK, SPEED_PACK, CLIP):
        shutil.copy(roadside / name, tmp_path)
    assert part.find_data(tmp_path, tmp_path, seed=0).clip_truth == ""


def test_a_named_folder_without_the_packs_is_an_error(roadside: Path, tmp_path: Path) -> None:
    """What the user names is never passed over in silence."""
    shutil.copy(roadside / SPEED_PACK, tmp_path)
    with pytest.raises(DataError, match="the demo needs vehicle6_64_jpeg"):
        part.find_data(tmp_path, tmp_path, seed=0)


def test_without_data_a_roadside_is_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roadside: Path) -> None:
    """Where no folder holds data, it is made in the work folder, and the origin says so."""

    def small(folder: Path, *, seed: int, **_: int) -> None:
        shutil.copytree(roadside, folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADCAST_DATA", raising=False)
    monkeypatch.setattr(part, "simulate_roadside", small)
    found = part.find_data(None, tmp_path / "work", seed=0)
    assert found.origin == "built-in simulated roadside"
    assert [path.name for path in (found.images, found.series, found.clip)] == [VEHICLE_PACK, SPEED_PACK, CLIP]


def test_a_usual_folder_with_other_packs_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roadside: Path
) -> None:
    """`data/` may hold packs of other tasks; the demo then simulates."""
    (tmp_path / "data").mkdir()
    shutil.copy(roadside / SPEED_PACK, tmp_path / "data" / "other.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADCAST_DATA", raising=False)
    monkeypatch.setattr(part, "simulate_roadside", lambda folder, **_: None)
    assert not part.find_data(None, tmp_path / "work", seed=0).real


def test_everybody_finds_a_pack_and_a_configuration(roadside: Path, tmp_path: Path) -> None:
    """The packs open, the configurations are what server and devices read, and the key is private."""
    data = part.find_data(roadside, tmp_path, seed=0)
    shares = part.partition(data, tmp_path / "data", SMALL, seed=3)
    places = Places(tmp_path)
    write_configs(places, shares, Pace(), port=1234, rounds=2)
    server = read_config(places.server_config)
    assert server.tasks["vehicle"].rounds.limit == 2
    assert all(Path(getattr(task, name)).is_file() for task in server.tasks.values() for name in ("anchors", "proxies"))
    keys = list((tmp_path / "keys").glob("*.pem"))
    assert len(keys) == 4 + len(server.tasks)
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)
    for member in FLEET:
        text = places.device_config(member.name).read_text()
        config = load_config(text, DeviceConfig, where=member.name)
        assert (config.tier, config.task, config.broker.port) == (member.tier, member.task, 1234)
        commissioned(read_root(config))
        assert len(config.sources) == (2 if member.plays_clip else 1)
        kind = ImagePack if member.is_camera else SeriesPack
        assert all(
            isinstance(open_pack(shares.device(member.name, p)), kind) for p in ("commissioning", "live", "test")
        )


def test_packs_of_the_wrong_kind_are_refused(roadside: Path, tmp_path: Path) -> None:
    """Speeds where pictures should be are named."""
    wrong = part.RawData("here", roadside / SPEED_PACK, roadside / SPEED_PACK, roadside / CLIP, real=False)
    with pytest.raises(DataError, match="must hold images"):
        part.partition(wrong, tmp_path, SMALL, seed=0)


def test_too_small_a_pack_is_refused(roadside: Path, tmp_path: Path) -> None:
    """A pack with too few pictures says how many are needed."""
    tiny = ImagePack.of(np.zeros((12, 64, 64, 3), np.uint8), classes=("a", "b"), labels=np.arange(12) % 2)
    save_pack(tmp_path / "tiny.npz", tiny, title="tiny")
    data = part.RawData("here", tmp_path / "tiny.npz", roadside / SPEED_PACK, roadside / CLIP, real=False)
    with pytest.raises(DataError, match="the demo needs"):
        part.partition(data, tmp_path / "out", SMALL, seed=0)
