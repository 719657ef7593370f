"""Finding, listing, checking and importing data, in process."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from devices.packs import ImagePack, card_path, save_pack
from edge_models.tasks import load_task
from edge_protocol.errors import DataError
from roadcast.data.catalogue import check_pack, list_packs
from roadcast.data.find import SIMULATED, find_data_dir
from roadcast.data.importing import Skipped, import_images, import_table


def small_pack(path: Path) -> Path:
    """Write a pack of three images, one unlabelled."""
    images = np.zeros((3, 8, 8, 3), np.uint8)
    save_pack(
        path, ImagePack.of(images, classes=("a", "b"), labels=np.array([0, 1, -1])), title="small", licence="none"
    )
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without data, and no variable set."""
    monkeypatch.delenv("ROADCAST_DATA", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_search_order(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--data wins over the variable, that over data/, that over the shared folder, and that over simulation."""
    assert find_data_dir() == find_data_dir(None)
    assert (find_data_dir().path, find_data_dir().origin) == (None, SIMULATED)
    (nowhere / "work/data").mkdir()
    small_pack(nowhere / "shared/data/a.npz")
    assert find_data_dir().origin == "../shared/data/"
    small_pack(nowhere / "work/data/a.npz")
    assert find_data_dir().origin == "data/"
    small_pack(nowhere / "variable/a.npz")
    monkeypatch.setenv("ROADCAST_DATA", str(nowhere / "variable"))
    assert (find_data_dir().path, find_data_dir().origin) == (nowhere / "variable", "$ROADCAST_DATA")
    assert find_data_dir(nowhere / "shared/data").origin == "--data"


def test_a_named_folder_is_never_passed_over(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the user names and that is missing or empty is an error, not a reason to simulate."""
    with pytest.raises(DataError, match=r"nope \(from --data\): no such folder"):
        find_data_dir(nowhere / "nope")
    monkeypatch.setenv("ROADCAST_DATA", str(nowhere))
    with pytest.raises(DataError, match=r"from \$ROADCAST_DATA\): no pack"):
        find_data_dir()


def test_listing(tmp_path: Path) -> None:
    """Cards are shown, and what is wrong with them."""
    small_pack(tmp_path / "a.npz")
    for name in ("b", "c", "d"):
        small_pack(tmp_path / f"{name}.npz")
    card_path(tmp_path / "b.npz").unlink()
    card_path(tmp_path / "c.npz").write_text("{")
    (tmp_path / "d.npz").write_bytes(b"short")
    a, b, c, d = list_packs(tmp_path)
    assert (a.file, a.title, a.licence, a.problem) == ("a.npz", "small", "none", "")
    assert (b.title, b.problem) == ("", "")
    assert "not a data card" in c.problem
    assert d.problem.startswith("5 bytes, its card says")


def test_checking_images(tmp_path: Path) -> None:
    """A pack of images tells its classes and what is unlabelled."""
    checked = check_pack(small_pack(tmp_path / "a.npz"))
    assert (checked.kind, checked.shape, checked.hash) == ("images", (3, 8, 8, 3), "checked")
    assert checked.facts == {"a": 1, "b": 1, "unlabelled": 1, "test": 0}
    card_path(tmp_path / "a.npz").unlink()
    assert check_pack(tmp_path / "a.npz").hash == "no card"


def folder_of_images(root: Path) -> Path:
    """Ten cars, five bikes, one beside the folders, two that are no images."""
    for name, count, level in (("car", 10, 50), ("bike", 5, 200)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(root / name / f"{i}.png"), np.full((20, 40, 3), level, np.uint8))
    cv2.imwrite(str(root / "loose.png"), np.zeros((9, 9, 3), np.uint8))
    (root / "car/broken.jpg").write_bytes(b"no image")
    (root / "bike/empty.png").write_bytes(b"")
    return root


def test_importing_a_folder(tmp_path: Path) -> None:
    """Sub-folders are classes, each gives its share to the test part, and broken files are named."""
    pack, skipped = import_images(folder_of_images(tmp_path / "in"), size=16, test_share=0.2)
    assert pack.classes == ("bike", "car")
    assert pack.images.shape == (16, 16, 16, 3)
    assert sorted(pack.labels.tolist()) == [-1] + [0] * 5 + [1] * 10
    assert {int(level) for level in pack.images[pack.labels == 1].ravel()} == {50}
    assert np.bincount(pack.labels[pack.split == 1]).tolist() == [1, 2]
    assert str(skipped).startswith("2 images skipped: bike/empty.png: not a readable image; car/broken.jpg")


def test_records_beside_images_become_side_inputs(tmp_path: Path) -> None:
    """The task's plug-in reads them; none is zeros, a refused one skips its image; without a task none is looked at."""
    folder = folder_of_images(tmp_path / "in")
    for name, record in (("0", '{"temperature": 38.4}'), ("1", '{"pulse": "fast"}'), ("2", "[1]"), ("3", "{}")):
        (folder / f"bike/{name}.json").write_text(record)
    clinic = load_task("clinic")
    pack, skipped = import_images(folder, size=16, test_share=0, spec=clinic)
    assert pack.side_names == clinic.side
    bikes = pack.side[pack.labels == pack.classes.index("bike")]
    np.testing.assert_allclose(bikes, [[0, 0, 2, 1, 0, 0], [0] * 6, [0] * 6], atol=1e-6)
    assert not pack.side[3:].any()
    assert [reason.split(":")[0] for reason in skipped.reasons[:3]] == ["bike/1.png", "bike/2.png", "bike/empty.png"]
    for spec in (None, load_task("vehicle")):
        assert import_images(folder, size=16, test_share=0, spec=spec)[0].side.shape == (16, 0)


def test_importing_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, no image, no readable image and too many images are told apart."""
    with pytest.raises(DataError, match="no such folder"):
        import_images(tmp_path / "nope", size=16, test_share=0)
    with pytest.raises(DataError, match="no image in it"):
        import_images(tmp_path, size=16, test_share=0)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        import_images(tmp_path, size=16, test_share=0)
    monkeypatch.setattr("roadcast.data.importing.MAX_BYTES", 100)
    with pytest.raises(DataError, match="use a smaller --size"):
        import_images(tmp_path, size=16, test_share=0)


def test_importing_a_table_with_gaps(tmp_path: Path) -> None:
    """Rows are laid on an even grid; a gap and an empty cell are missing, wrong and repeated lines are named."""
    lines = ["time,a,b", "0,1,2", "300,3,", "1200,5,6", "600,7,8", "300,9,9", "oops,1,1", "1500,1"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    pack, skipped = import_table(tmp_path / "t.csv", unit="mph", interval_s=None)
    nan = np.nan
    np.testing.assert_array_equal(pack.values, np.array([(1, 2), (9, 9), (7, 8), (nan, nan), (5, 6)], np.float32))
    assert pack.time_s.tolist() == [0, 300, 600, 900, 1200]
    assert (pack.interval_s, pack.sensors, pack.unit) == (300, ("a", "b"), "mph")
    assert [reason[:7] for reason in skipped.reasons] == ["line 7:", "line 8:", "1 rows "]
    coarse, _ = import_table(tmp_path / "t.csv", unit="mph", interval_s=600)
    assert len(coarse) == 3


def test_importing_a_bad_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way in which a table can be wrong has its own message."""
    path = tmp_path / "t.csv"
    cases = {
        "must name a time column": b"time\n",
        "different sensors": b"time,a,a\n",
        "1 good rows; at least two": b"time,a\n1,1\nx,1\n",
        "all rows have the same time": b"time,a\n1,1\n1,2\n",
        "not a CSV file in UTF-8": b"time,a\n\xff\xfe\n",
        "name a larger --interval-s": b"time,a\n0,1\n1,1\n2,1\n1e15,1\n",
    }
    with pytest.raises(DataError, match="cannot be read"):
        import_table(path, unit="", interval_s=None)
    for message, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(DataError, match=message):
            import_table(path, unit="", interval_s=None)


def test_long_lists_are_cut() -> None:
    """A thousand broken files do not fill the screen."""
    text = str(Skipped("images", tuple(f"{i}.png: broken" for i in range(1000))))
    assert text.startswith("1000 images skipped: 0.png: broken; ")
    assert text.endswith("; and 995 more")
