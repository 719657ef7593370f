"""What the wheel holds, and that each of our top-level names comes from our own install (docs/adr/0001)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"roadcast", "edge_client", "broker_server", "export", "devices", "edge_models", "edge_protocol"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree by the build back end itself."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    """No tests, benchmarks, docs or data slip in."""
    tops = {name.partition("/")[0] for name in _names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_wheel_holds_every_source_file(wheel: Path) -> None:
    """Each tracked file of our packages is in the wheel: modules, task files, migrations, type markers."""
    tracked = subprocess.run(
        ["git", "ls-files", *sorted(PACKAGES)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(tracked) - _names(wheel) == set()
    assert "edge_models/tasks/vehicle.yaml" in tracked
    assert "broker_server/migrations/env.py" in tracked


def test_an_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """Unpacked on its own, away from this tree, the wheel finds its tasks and speaks."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import edge_models.tasks as t; print(t.__file__); print(t.task_names(), t.load_task('vehicle').name)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path))
    assert "'vehicle'" in done.stdout


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_each_name_comes_from_our_tree(package: str) -> None:
    """No other distribution's folder of the same name is imported instead of ours."""
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    assert Path(found.origin).resolve() == ROOT / package / "__init__.py"


def test_no_other_distribution_claims_our_names() -> None:
    """In this environment only Roadcast installs modules of these names (an editable install lists none itself)."""
    owners = packages_distributions()
    assert {name: owners[name] for name in PACKAGES if set(owners.get(name, ["roadcast"])) != {"roadcast"}} == {}
    assert distribution("roadcast").metadata["Name"] == "roadcast"
