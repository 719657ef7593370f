"""`roadcast flash wheels`: fetches every wheel that a board needs, so that it installs them without a network.

pip fetches; it decides environment markers for the Python that it runs on, so what it left out for the board's Python
is found in the wheels' own metadata and asked for. The hashes are written last: a run that was cut off leaves none.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from email.parser import HeaderParser
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from devices.provision.programs import Programs
from devices.provision.wheels import REQUIREMENTS, Target, name_and_version, pins_for, requirements
from edge_protocol.errors import ConfigError, NotReadyError, StoreError

_SOURCE = Path(__file__).resolve().parents[1]
_TOLD = 1000
"""Characters of what pip complains of that are passed on."""
_OWN_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
_ROUNDS = 5
"""How often pip is asked again for what it left out."""


class Wheelhouse(msgspec.Struct, frozen=True):
    """A folder that is complete.

    Attributes:
        folder: where.
        target: what it is for.
        wheels: file names and their bytes' number.
    """

    folder: str
    target: Target
    wheels: dict[str, int]


def fill(
    out: Path,
    target: Target,
    *,
    wheel: Path | None = None,
    constraints: Path | None = None,
    extras: Sequence[str] = (),
    find_links: Sequence[Path] = (),
    offline: bool = False,
) -> Wheelhouse:
    """Fetch the wheels of a target into a folder; wheels of other makers that lie there are kept and hashed too.

    Args:
        out: the folder.
        target: what they are for.
        wheel: Roadcast's own; None to build it from the source that this runs from.
        constraints: pinned versions; None for those of the source, if it is there.
        extras: of Roadcast, such as ``train``.
        find_links: folders in which pip looks first.
        offline: it looks nowhere else.

    Raises:
        ConfigError: a file is missing, or two versions of one package would lie there.
        NotReadyError: pip finds no set of wheels.
        StoreError: the disk refused.
    """
    pinned = constraints or (_SOURCE / "constraints.txt" if (_SOURCE / "constraints.txt").is_file() else None)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".roadcast-", dir=out) as name:
            folder = Path(name)
            (folder / "pins").write_text("" if pinned is None else pins_for(_text(pinned), target.python))
            ours = wheel or _build(folder / "ours")
            command = ["download", "--dest", "wheels", "--constraint", "pins", "--only-binary=:all:"]
            command += ["--python-version", target.python, *(f"--platform={one}" for one in target.platforms)]
            command += [f"--find-links={path.absolute()}" for path in find_links] + ["--no-index"] * offline
            asked = [f"{ours.absolute()}[{','.join(extras)}]" if extras else str(ours.absolute())]
            for _ in range(_ROUNDS):
                _pip(folder, *command, *asked)
                left_out = sorted(_left_out(folder / "wheels", target, extras))
                if not left_out:
                    return _settle(folder / "wheels", out, target)
                asked += left_out
    except OSError as error:
        raise StoreError(f"{error.filename or out}: {error.strerror or error}") from error
    raise NotReadyError(f"pip leaves out {', '.join(left_out)}, which wheels for Python {target.python} need")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--constraints: {path} is no text: {error}") from error


def _build(folder: Path) -> Path:
    if not (_SOURCE / "pyproject.toml").is_file():
        raise ConfigError("--wheel: this Roadcast was installed from a wheel; name that file")
    folder.mkdir()
    isolated = ["--no-build-isolation"] if find_spec("hatchling") else []
    _pip(folder, "wheel", "--no-deps", "--wheel-dir", ".", *isolated, str(_SOURCE))
    (built,) = folder.glob("roadcast-*.whl")
    return built


def _pip(folder: Path, *arguments: str) -> None:
    command = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments)
    ran = Programs().run(*command, folder=folder, good=range(256))
    if ran.status:
        _, _, caused = ran.out.decode("utf-8", "replace").partition("The conflict is caused by:\n")
        lines = [*ran.err.splitlines(), *caused.partition("\n\n")[0].splitlines()]
        says = "; ".join(line.strip() for line in lines if line.strip())[:_TOLD]
        raise NotReadyError(f"pip {arguments[0]} found no such set of wheels: {says}")


def _left_out(folder: Path, target: Target, extras: Sequence[str]) -> Iterator[str]:
    """Requirements of the wheels, as the target sees them, that no wheel there fulfils."""
    wheels = {name_and_version(path.name) for path in folder.glob("*.whl")}
    versions = {canonicalize_name(name): version for name, version in wheels}
    for path in folder.glob("*.whl"):
        for line in _requires(path):
            try:
                need = Requirement(line)
            except InvalidRequirement as error:
                raise NotReadyError(f"{path.name} asks for what is no requirement: {line!r}") from error
            wanted = ("", *extras) if path.name.startswith("roadcast-") else ("",)
            if need.marker and not any(need.marker.evaluate({**target.markers, "extra": extra}) for extra in wanted):
                continue
            version = versions.get(canonicalize_name(need.name))
            if version is None or not need.specifier.contains(version, prereleases=True):
                yield f"{need.name}{need.specifier}"


def _requires(wheel: Path) -> list[str]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if _OWN_METADATA.fullmatch(name))  # some carry others' along
            text = archive.read(name).decode("utf-8", "replace")
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        raise NotReadyError(f"{wheel.name} is no wheel: {error}") from error
    return HeaderParser().parsestr(text).get_all("Requires-Dist") or []


def _settle(fetched: Path, out: Path, target: Target) -> Wheelhouse:
    """Put what was fetched in its place, take away what only an earlier run wanted, write the hashes."""
    listed = out / REQUIREMENTS
    earlier = listed.read_text("utf-8", "replace") if listed.is_file() else ""
    wanted = {path.name for path in fetched.glob("*.whl")}
    stale = {path for path in out.glob("*.whl") if path.name not in wanted and _is_listed(path.name, earlier)}
    if not stale and all((out / name).is_file() for name in wanted):
        kept = {path.name: path.read_bytes() for path in out.glob("*.whl")}
        same = all((fetched / name).read_bytes() == kept[name] for name in wanted)
        if same and requirements(kept) == earlier:
            return Wheelhouse(str(out), target, {name: len(content) for name, content in sorted(kept.items())})
    listed.unlink(missing_ok=True)
    for path in stale:
        path.unlink()
    for name in wanted:
        (fetched / name).replace(out / name)
    wheels = {path.name: path.read_bytes() for path in sorted(out.glob("*.whl"))}
    text = requirements(wheels)
    beside = fetched / REQUIREMENTS
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(listed)
    return Wheelhouse(str(out), target, {name: len(content) for name, content in wheels.items()})


def _is_listed(wheel: str, earlier: str) -> bool:
    name, version = name_and_version(wheel)
    return any(line.startswith(f"{name}=={version} ") for line in earlier.splitlines())
