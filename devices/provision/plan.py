"""The install plan of one device: every file and link that must lie on it. Pure; whoever carries it out may differ."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec
import yaml

from devices.provision import units
from devices.provision.environment import SETUP_SCRIPT
from devices.provision.places import CONFIG_DIR, FACTORY_DIR, NO_STATE, STATE_DIR
from devices.provision.power_mode import POWER_SCRIPT, POWER_UNIT, power_unit
from devices.provision.site import Absolute, InstallConfig
from devices.provision.wheels import REQUIREMENTS, requirements
from edge_protocol.errors import ConfigError
from edge_protocol.identity.token import parse_token

INSTALLED: Final = "/usr/lib/roadcast/installed"
"""Where a plan leaves the list of its paths; see `leftovers`."""
_UNITS = "/etc/systemd/system"
_SECRET, _PLAIN = 0o640, 0o644


class PlannedFile(msgspec.Struct, frozen=True):
    """A file on the device.

    Attributes:
        path: absolute, on the device.
        content: its bytes.
        mode: permission bits.
        once: the device uses it up: it is not brought again once the list on the device names it.
    """

    path: str
    content: bytes
    mode: int = _PLAIN
    once: bool = False


class PlannedLink(msgspec.Struct, frozen=True):
    """A symbolic link on the device, and what it says."""

    path: str
    target: str


class Plan(msgspec.Struct, frozen=True):
    """Everything for one device; carrying it out twice is carrying it out once."""

    files: tuple[PlannedFile, ...]
    links: tuple[PlannedLink, ...]


def make_plan(
    tree: Mapping[str, Any],
    install: InstallConfig,
    copies: Mapping[str, bytes],
    wheels: Mapping[str, bytes],
    token: str | None = None,
) -> Plan:
    """Say what must lie on a device.

    Args:
        tree: the agent's configuration, checked.
        install: how it is installed.
        copies: content by path on the device, for `install.copy` and `install.factory`.
        wheels: content by file name.
        token: with which it enrols itself; None for one that has its certificate, or needs none.

    Raises:
        ConfigError: a wheel folder without Roadcast's own wheel, or a name that is no wheel's; a token that is none or
            another device's, or a certificate that would have no place.
    """
    state_dir = _state_dir(tree)
    files = [
        PlannedFile(f"{CONFIG_DIR}/device.yaml", yaml.safe_dump(dict(tree), sort_keys=False).encode(), _SECRET),
        *(PlannedFile(path, content, _mode(path)) for path, content in copies.items()),
        _text(f"{_UNITS}/{units.AGENT_UNIT}", units.agent_unit(install, state_dir)),
        _text("/etc/sysusers.d/roadcast.conf", units.sysusers(install)),
        _text("/etc/tmpfiles.d/roadcast.conf", units.tmpfiles(install, state_dir)),
        _text("/etc/systemd/journald.conf.d/roadcast.conf", units.journal(install)),
    ]
    enabled = [units.AGENT_UNIT]
    if install.wheels is not None:
        files += _wheels(install, wheels)
    if install.power_mode is not None:
        script = f"{install.prefix}/power-mode.sh"
        files += [
            _text(script, POWER_SCRIPT),
            _text(f"{_UNITS}/{POWER_UNIT}", power_unit(install.power_mode, script, units.AGENT_UNIT)),
        ]
        enabled.append(POWER_UNIT)
    if install.cameras:
        files.append(_text(units.RULES, units.camera_rules(install)))
    links = [_enabled(unit) for unit in enabled]
    if token is not None:
        secret = _token(tree, token, state_dir)
        files += [secret, _text(f"{_UNITS}/{units.ENROL_UNIT}", units.enrol_unit(install, state_dir, secret.path))]
        links.append(_enabled(units.ENROL_UNIT))
    if (tree.get("broker") or {}).get("cert_file"):
        files.append(_text(f"{_UNITS}/{units.RENEW_UNIT}", units.renew_unit(install, state_dir)))
        files.append(_text(f"{_UNITS}/{units.RENEW_TIMER}", units.renew_timer()))
        links.append(_enabled(units.RENEW_TIMER, "timers"))
    return Plan((*files, _listed(files, links)), tuple(links))


def check_budget(install: InstallConfig, replay_bytes: int) -> None:
    """Refuse a replay store that would not leave a quarter of the state's budget to outbox, releases and heads.

    Args:
        install: with the budget, or without one.
        replay_bytes: what the agent keeps at most, as it is said or by default.

    Raises:
        ConfigError: it is too much.
    """
    if install.state_mb is not None and replay_bytes > 0.75e6 * install.state_mb:
        says = f"agent.replay.budget_bytes: {replay_bytes} is more than three quarters of install.state_mb"
        raise ConfigError(f"{says}, {install.state_mb} MB")


def _listed(files: list[PlannedFile], links: list[PlannedLink]) -> PlannedFile:
    """The list of a plan's paths; a folder of wheels is the plan's own, and ends with a slash."""
    paths = {file.path for file in files} | {link.path for link in links} | {INSTALLED}
    folders = {f"{path.rpartition('/')[0]}/" for path in paths if path.endswith(".whl")}
    return _text(INSTALLED, "".join(f"{path}\n" for path in sorted(paths | folders)))


def _enabled(unit: str, by: str = "multi-user") -> PlannedLink:
    return PlannedLink(f"{_UNITS}/{by}.target.wants/{unit}", f"{_UNITS}/{unit}")


def _token(tree: Mapping[str, Any], token: str, state_dir: str) -> PlannedFile:
    """The token as a file for systemd's ``EnvironmentFile``; another token is another file."""
    parsed, broker = parse_token(token), tree.get("broker") or {}
    if parsed.name != tree.get("device"):
        raise ConfigError(f"install.tokens: the token of {tree.get('device')!r} is for {parsed.name!r}")
    places = [str(broker.get(name, "")) for name in ("ca_file", "cert_file", "key_file")]
    if not all(place.startswith(f"{state_dir}/") for place in places):
        says = f"agent.broker: enrolment writes ca_file, cert_file and key_file, so they must lie below {state_dir}"
        raise ConfigError(f"{says}, where the agent's user may write")
    name = f"{CONFIG_DIR}/token-{sha256(token.encode()).hexdigest()[:16]}"
    return PlannedFile(name, f"ROADCAST_TOKEN={token.strip()}\n".encode(), _SECRET, once=True)


def _state_dir(tree: Mapping[str, Any]) -> str:
    try:
        path = msgspec.convert(tree.get("state_dir", STATE_DIR), Absolute)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"agent.state_dir: an absolute path of plain characters, for it stands in units: {error}"
        ) from error
    if {".", ".."} & set(path.split("/")):
        raise ConfigError(f"agent.state_dir: {path!r} must be a path without '.' and '..'")
    if found := [folder for folder in NO_STATE if f"{path}/".startswith(f"{folder}/")]:
        raise ConfigError(
            f"agent.state_dir: {path!r} is below {found[0]}, which the agent's unit hides or a boot empties"
        )
    return path


def _wheels(install: InstallConfig, wheels: Mapping[str, bytes]) -> list[PlannedFile]:
    listed = requirements(wheels)
    for name in wheels:
        if not name.endswith(("-any.whl", f"_{install.machine}.whl")):
            raise ConfigError(f"install.wheels: {name} is not for {install.machine}, the board's processor")
    if not any(name.startswith("roadcast-") for name in wheels):
        raise ConfigError("install.wheels: the folder holds no roadcast-*.whl; build it: pip wheel --no-deps .")
    digest = sha256()
    for name in sorted(wheels):
        digest.update(name.encode() + sha256(wheels[name]).digest())
    name_of_set = digest.hexdigest()[:16]
    folder = f"{install.prefix}/wheels-{name_of_set}"
    setup = _text(f"{_UNITS}/{units.SETUP_UNIT}", units.setup_unit(install, name_of_set, folder))
    hashes = _text(f"{folder}/{REQUIREMENTS}", listed)
    script = _text(units.setup_script(install), SETUP_SCRIPT)
    return [setup, script, hashes, *(PlannedFile(f"{folder}/{name}", wheels[name]) for name in sorted(wheels))]


def _mode(path: str) -> int:
    """A factory model is no secret, and the agent's user is not its owner."""
    return _PLAIN if path.startswith(f"{FACTORY_DIR}/") else _SECRET


def _text(path: str, text: str) -> PlannedFile:
    return PlannedFile(path, text.encode())
