"""The boot resolver reads nothing but the disk, and falls back whatever is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_client.disk import file_sha256, write_atomic
from edge_client.installed import HeadChoice, InstalledStore, Resolved, resolve
from edge_client.offers import MAX_ATTEMPTS
from edge_models.head_weights import HeadWeights
from edge_models.tasks import load_task
from edge_protocol.errors import StoreError
from edge_protocol.manifest import ReleaseManifest
from tests.edge_client.core_driver import SPEC, artifact
from tests.fakes.signed_fleet import SignedFleet
from tests.fakes.small_centre import FLEET, signed_fleet

CHOICE = HeadChoice(chosen="personal", shared={"accuracy": 0.5}, personal={"accuracy": 0.8}, n_train=9, n_valid=3)


def commit(folder: Path, counter: int, running: int | None = None) -> InstalledStore:
    """Install a release of small files."""
    store, files = InstalledStore(folder / "vehicle"), artifact(counter)
    for text, ref in (
        ("template", files.template),
        (f"weights {counter}", files.weights),
        (f"golden {counter}", files.golden),
    ):
        place = folder / "blobs" / ref.sha256
        place.mkdir(parents=True, exist_ok=True)
        (place / "data").write_bytes(text.encode())
    proven = signed_fleet().prove(ReleaseManifest(FLEET, counter, SPEC, 1.0, (files,), {}))
    store.commit(counter, files, *proven, running=running)
    return store


def boot(folder: Path, **other: object) -> tuple[list[int], list[str]]:
    """What would be booted, newest first, and why not others."""
    how = {"spec": SPEC, "tier": "nano", "root": signed_fleet().root} | other
    found, skipped = resolve(folder / "vehicle", folder / "blobs", **how)  # type: ignore[arg-type]
    assert all(isinstance(each, Resolved) for each in found)
    return [each.release for each in found], skipped


def test_the_newest_release_comes_first_and_the_one_before_stands_by(tmp_path: Path) -> None:
    """An empty disk boots nothing and complains about nothing."""
    assert boot(tmp_path) == ([], [])
    store = commit(tmp_path, 1)
    assert boot(tmp_path) == ([1], [])
    commit(tmp_path, 2)
    commit(tmp_path, 3)
    assert boot(tmp_path) == ([3, 2], [])
    names = {artifact(c).weights.sha256 for c in (2, 3)}
    assert names <= store.named_blobs()
    assert artifact(1).weights.sha256 not in store.named_blobs()


@pytest.mark.parametrize("damage", ["torn pointer", "empty pointer", "missing blob", "changed blob", "wrong counter"])
def test_whatever_is_damaged_the_release_before_is_booted(tmp_path: Path, damage: str) -> None:
    """Torn or forged pointers and damaged files are passed over with the reason."""
    commit(tmp_path, 1)
    commit(tmp_path, 2)
    current = tmp_path / "vehicle" / "current.json"
    weights = tmp_path / "blobs" / artifact(2).weights.sha256 / "data"
    match damage:
        case "torn pointer":
            current.write_bytes(current.read_bytes()[:50])
        case "empty pointer":
            current.write_bytes(b"")
        case "missing blob":
            weights.unlink()
        case "changed blob":
            weights.write_bytes(b"weights 3")
        case _:
            current.write_bytes(current.read_bytes().replace(b'"release":2', b'"release":9'))
    releases, (reason,) = boot(tmp_path)
    assert releases == [1]
    assert reason.startswith("current.json: ")


def test_what_a_trusted_key_did_not_sign_is_never_booted(tmp_path: Path) -> None:
    """A pointer that somebody wrote by hand does not run; nor does one for another task or tier."""
    commit(tmp_path, 1)
    assert boot(tmp_path, root=SignedFleet().root)[0] == []
    assert boot(tmp_path, spec=load_task("clinic"))[0] == []
    assert boot(tmp_path, tier="base")[0] == []
    assert boot(tmp_path)[0] == [1]


def test_a_pointer_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """A folder where the temporary file should be: the disk refuses, the device keeps what it has."""
    commit(tmp_path, 1)
    (tmp_path / "vehicle" / "current.json.tmp").mkdir()
    with pytest.raises(StoreError, match="directory"):
        commit(tmp_path, 2)
    assert boot(tmp_path)[0][0] == 1


def test_a_damaged_pointer_never_takes_the_place_of_the_release_that_serves(tmp_path: Path) -> None:
    """A device that fell back to release 1 keeps it as the previous one when it is given the next."""
    commit(tmp_path, 1)
    commit(tmp_path, 2)
    (tmp_path / "blobs" / artifact(2).weights.sha256 / "data").write_bytes(b"damaged")
    assert boot(tmp_path)[0] == [1]
    commit(tmp_path, 3, running=1)
    assert boot(tmp_path)[0] == [3, 1]
    (tmp_path / "vehicle" / "current.json").write_bytes(b"[" * 100_000)
    commit(tmp_path, 4, running=1)
    assert boot(tmp_path)[0] == [4, 1]


def test_a_release_that_took_the_agent_down_is_passed_over(tmp_path: Path) -> None:
    """The resolver reads the count of loads that never came to an end."""
    commit(tmp_path, 1)
    commit(tmp_path, 2)
    for loads, found in ((1, [2, 1]), (2, [2, 1]), (3, [1])):
        InstalledStore(tmp_path / "vehicle").begin_attempt(2)
        assert boot(tmp_path)[0] == found, loads
    assert "took the agent down 3 times" in boot(tmp_path)[1][0]


def test_attempts_are_counted_across_restarts_and_cleared_by_an_outcome(tmp_path: Path) -> None:
    """Each release has its own count, of a few at most; a damaged record is no record."""

    def started() -> InstalledStore:
        return InstalledStore(tmp_path / "vehicle")

    assert started().attempts() == {}
    started().begin_attempt(4)
    started().begin_attempt(4)
    store = started()
    assert store.attempts() == started().attempts() == {4: 2}
    store.begin_attempt(5)
    assert store.attempts() == started().attempts() == {4: 2, 5: 1}
    store.end_attempt(4)
    store.end_attempt(4)
    assert store.attempts() == started().attempts() == {5: 1}
    for release in range(1, 40):
        started().begin_attempt(release)
    assert len(started().attempts()) <= 5
    for damage in ("{", '{"2":1}', '{"counted":{"x":1}}', '{"under_way":3}'):
        (tmp_path / "vehicle" / "attempts.json").write_text(damage)
        assert started().attempts() == {}


def test_what_was_loaded_last_is_to_blame(tmp_path: Path) -> None:
    """A candidate that takes the agent down leaves no mark on the release that served beside it."""

    def started() -> InstalledStore:
        return InstalledStore(tmp_path / "vehicle")

    for crashed in (1, 2, 3):
        store = started()
        store.begin_attempt(1)
        store.begin_attempt(2)
        assert started().attempts() == {2: crashed}
    store.end_attempt(2)
    assert started().attempts() == {1: 1}
    store.begin_attempt(3)
    store.end_attempts()
    assert started().attempts() == {}


def test_what_serves_for_a_while_gives_those_left_alone_one_more_load(tmp_path: Path) -> None:
    """Its own loads are forgotten."""
    for release in (1, 1, 2, 2, 2, 2):
        InstalledStore(tmp_path / "vehicle").begin_attempt(release)
    store = InstalledStore(tmp_path / "vehicle")
    store.begin_attempt(1)
    store.settle(1)
    assert store.attempts() == InstalledStore(tmp_path / "vehicle").attempts() == {2: MAX_ATTEMPTS - 1}


def test_heads_belong_to_releases_and_old_ones_go(tmp_path: Path) -> None:
    """Two are kept; a damaged head is none."""
    store = InstalledStore(tmp_path / "vehicle")
    head = HeadWeights(np.ones((6, 64), np.float32), np.zeros(6, np.float32))
    for release in (1, 2, 10):
        store.save_head(release, head, CHOICE)
    assert store.load_head(1, SPEC) is None
    loaded = store.load_head(10, SPEC)
    assert loaded is not None
    np.testing.assert_array_equal(loaded[0].weight, head.weight)
    assert loaded[1] == CHOICE
    (tmp_path / "vehicle" / "heads" / "10.safetensors").write_bytes(b"torn")
    assert store.load_head(10, SPEC) is None
    assert store.load_head(2, SPEC) is not None


def test_an_atomic_write_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """Never a part of it, never a temporary file."""
    path = tmp_path / "a" / "b.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]
    with pytest.raises(StoreError, match="File exists"):
        write_atomic(path / "below", b"x")
    assert file_sha256(tmp_path / "none") == ""
