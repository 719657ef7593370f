"""What keeps the agent from running in a system is found in a tree, in an image, and in one that is mounted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.findings import Finding
from devices.provision import image as images
from devices.provision.programs import Programs
from devices.provision.system_checks import Folder, check_system
from edge_protocol.errors import RoadcastError
from tests.fakes.images import MIB, SKIP_REASON, tool
from tests.fakes.l4t import AARCH64, ELF, X86_64
from tests.fakes.target import tools_path

PYTHON = "/usr/bin/python3"
Check = Callable[[Path, str], tuple[Finding, ...]]


def _tree(tmp_path: Path) -> Path:
    """A system that is fit: a shell for aarch64, Python 3.11 with ensurepip."""
    root = tmp_path / "tree"
    for folder in ("etc", "usr/bin", "usr/lib/python3.11/ensurepip", "usr/lib/python3"):
        (root / folder).mkdir(parents=True)
    (root / "usr/lib/python3.11/ensurepip/__init__.py").touch()
    (root / "usr/bin/dash").write_bytes(ELF + AARCH64 + bytes(5000))
    (root / "usr/bin/python3").symlink_to("python3.11")
    return root


def _in_folder(root: Path, python: str) -> tuple[Finding, ...]:
    return tuple(check_system(Folder(root), "aarch64", python))


def _image(root: Path) -> Path:
    image = root.parent / "x.img"
    with image.open("wb") as file:
        file.truncate(8 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-d", str(root), str(image))
    return image


def _in_image(root: Path, python: str) -> tuple[Finding, ...]:
    return images.check(_image(root), "aarch64", python)


def _in_mounted(root: Path, python: str) -> tuple[Finding, ...]:
    programs = Programs(tools_path(root.parent / "bin"))
    for name in ("mount", "umount"):
        (root.parent / "bin" / name).symlink_to(tool("sh", "-c", f"command -v {name}").decode().strip())
    try:
        return images.check(_image(root), "aarch64", python, programs=programs)
    except RoadcastError as error:
        if "mount left with" in str(error):
            pytest.skip(f"nothing can be mounted here: {error}")
        raise


_images = pytest.mark.skipif(bool(SKIP_REASON), reason=SKIP_REASON)
_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
WHERE = [
    pytest.param(_in_folder, id="tree"),
    pytest.param(_in_image, id="image", marks=_images),
    pytest.param(_in_mounted, id="mounted", marks=[_images, _root]),
]


def _relink(root: Path, to: str) -> None:
    (root / "usr/bin/python3").unlink()
    (root / "usr/bin/python3").symlink_to(to)


@pytest.mark.parametrize("check", WHERE)
def test_a_system_that_is_fit_has_nothing_said_of_it(check: Check, tmp_path: Path) -> None:
    """The processor of the site, a Python that is new enough, and what makes environments."""
    assert check(_tree(tmp_path), PYTHON) == ()


@pytest.mark.parametrize("check", WHERE)
def test_what_is_wrong_is_found_wherever_the_system_lies(check: Check, tmp_path: Path) -> None:
    """Another processor and an old Python at once."""
    root = _tree(tmp_path)
    (root / "usr/bin/bash").write_bytes(ELF + X86_64)
    _relink(root, "/usr/bin/python3.8")
    processor, python = check(root, PYTHON)
    assert (processor.level, processor.says) == ("fail", "the system is for x86_64, the site for aarch64")
    assert (python.level, python.says) == ("fail", "the system has Python 3.8, and Roadcast needs 3.10")


@pytest.mark.parametrize("check", WHERE)
def test_a_python_without_venv_is_found(check: Check, tmp_path: Path) -> None:
    """Debian's without python3-venv: the set-up would fail at the first boot."""
    root = _tree(tmp_path)
    (root / "usr/lib/python3.11/ensurepip/__init__.py").unlink()
    (finding,) = check(root, PYTHON)
    assert (finding.check, finding.level) == ("python", "warn")


@pytest.mark.parametrize("check", WHERE)
@pytest.mark.parametrize("python", ["/opt/none/bin/python3", "/usr/bin/mine"])
def test_what_cannot_be_told_is_not_guessed_at(check: Check, python: str, tmp_path: Path) -> None:
    """Links where files are looked for, no Python at the place that is named, one of the owner's own."""
    root = _tree(tmp_path)
    (root / "usr/bin/dash").unlink()
    (root / "usr/bin/bash").symlink_to("/bin/bash")
    (root / "opt").symlink_to("usr")
    (root / "usr/bin/mine").symlink_to("python3.12")
    (root / "usr/lib/python3.11/ensurepip/__init__.py").unlink()
    assert check(root, python) == ()
