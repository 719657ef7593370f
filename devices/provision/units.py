"""Texts for systemd: the agent's service, its set-up, its user, the journal's budget. Pure."""

from __future__ import annotations

from collections.abc import Collection

from devices.provision.places import CONFIG_DIR, STATE_DIR
from devices.provision.power_mode import POWER_UNIT
from devices.provision.site import InstallConfig

AGENT_UNIT = "roadcast-agent.service"
SETUP_UNIT = "roadcast-setup.service"
RENEW_UNIT = "roadcast-renew.service"
RENEW_TIMER = "roadcast-renew.timer"
ENROL_UNIT = "roadcast-enrol.service"
RULES = "/etc/udev/rules.d/70-roadcast.rules"
ACTIVATION = f"""systemd-sysusers /etc/sysusers.d/roadcast.conf
systemd-tmpfiles --create /etc/tmpfiles.d/roadcast.conf
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  if [ -e /etc/systemd/system/{SETUP_UNIT} ]; then systemctl restart {SETUP_UNIT}; fi
  for unit in {POWER_UNIT} {RENEW_TIMER} {ENROL_UNIT}; do
    if [ -e /etc/systemd/system/$unit ]; then systemctl restart --no-block $unit; fi
  done
  if command -v udevadm >/dev/null; then udevadm control --reload; udevadm trigger --subsystem-match=video4linux; fi
  systemctl restart --no-block {AGENT_UNIT}
fi"""
"""What systemd is told once the files are there, for a shell that stops at errors; without systemd nothing starts.

The agent comes last: the old one runs until the wheels are installed, and on when they are not.
"""
_UNITS = "/etc/systemd/system"
_SOMETIMES = (SETUP_UNIT, POWER_UNIT, ENROL_UNIT, RENEW_TIMER, RENEW_UNIT)
"""Units that not every plan has."""


def activation(paths: Collection[str]) -> str:
    """`ACTIVATION` after what an earlier plan left of ours, by name: for those who cannot read its list any more.

    Args:
        paths: of the plan's files.
    """
    lines = ["root=${DPKG_ROOT:-}"]
    for unit in _SOMETIMES:
        if f"{_UNITS}/{unit}" not in paths:
            places = ("", "multi-user.target.wants/", "timers.target.wants/")
            lines.append(f"if [ -d /run/systemd/system ]; then systemctl stop {unit} 2>/dev/null || true; fi")
            lines.append("rm -f " + " ".join(f'"$root{_UNITS}/{place}{unit}"' for place in places))
    lines += [] if RULES in paths else [f'rm -f "$root{RULES}"']
    return "\n".join([*lines, ACTIVATION])


def agent_unit(install: InstallConfig, state_dir: str) -> str:
    """The agent as a service: watched, restarted, and without rights that it does not need.

    A wrong configuration (exit 78) or command line (2) is not tried again. `ProtectClock` would close all cameras.
    """
    needs = tidy = ""
    if install.wheels is not None:  # a set-up that fails leaves an older environment, or none
        needs = f"Wants={SETUP_UNIT}\nAfter={SETUP_UNIT}\nConditionPathExists={install.environment}/bin/roadcast\n"
        tidy = f"ExecStartPost=-+/bin/sh {setup_script(install)} {install.environment}\n"
    needs += f"RequiresMountsFor={state_dir} {install.environment}\n"
    elsewhere = f"ReadWritePaths={state_dir}\n" if state_dir != STATE_DIR else ""
    return f"""[Unit]
Description=Roadcast device agent
Wants=network-online.target
After=network-online.target time-sync.target
{needs}StartLimitIntervalSec=0

[Service]
Type=notify
User={install.user}
ExecStart={install.environment}/bin/python -m roadcast.agent --config {CONFIG_DIR}/device.yaml
{tidy}Restart=always
RestartSec=5
RestartPreventExitStatus=2 78
WatchdogSec={install.watchdog_s}
TimeoutStopSec=15
Environment=OMP_NUM_THREADS=1
StateDirectory=roadcast
StateDirectoryMode=0750
RuntimeDirectory=roadcast
RuntimeDirectoryMode=0755
UMask=0027
MemoryMax={install.memory_mb}M
OOMPolicy=continue
{elsewhere}CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
LogRateLimitIntervalSec=30
LogRateLimitBurst=200

[Install]
WantedBy=multi-user.target
"""


def renew_unit(install: InstallConfig, state_dir: str) -> str:
    """Renew the device's certificate when it is due; the agent takes it up at its next connection."""
    return _identity_unit("Renew the certificate of the Roadcast device", "renew", install, state_dir)


def enrol_unit(install: InstallConfig, state_dir: str, token: str) -> str:
    """Trade the token in a file for the device's first certificate, then throw it away; the key is made on the device.

    It is tried until it is done. Neither the agent, which serves its factory model meanwhile, nor the boot waits.
    """
    condition = f"ConditionPathExists={token}\nAfter={SETUP_UNIT}\nStartLimitIntervalSec=0\n"
    again = f"""EnvironmentFile={token}
ExecStartPost=+/bin/rm -f {token}
Restart=on-failure
RestartSec=60
RestartPreventExitStatus=2 78

[Install]
WantedBy=multi-user.target
"""
    return _identity_unit("Enrol the Roadcast device", "enrol", install, state_dir, condition, again)


def _identity_unit(
    says: str, command: str, install: InstallConfig, state_dir: str, condition: str = "", more: str = ""
) -> str:
    return f"""[Unit]
Description={says}
Wants=network-online.target
After=network-online.target time-sync.target
RequiresMountsFor={state_dir} {install.environment}
{condition}
[Service]
Type=oneshot
User={install.user}
ExecStart={install.environment}/bin/roadcast client {command} --config {CONFIG_DIR}/device.yaml
UMask=0027
StateDirectory=roadcast
StateDirectoryMode=0750
ReadWritePaths={state_dir}
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
{more}"""


def renew_timer() -> str:
    """Look every day, each device at another hour."""
    return """[Unit]
Description=Renew the certificate of the Roadcast device when it is due

[Timer]
OnCalendar=daily
RandomizedDelaySec=6h
Persistent=true

[Install]
WantedBy=timers.target
"""


def setup_unit(install: InstallConfig, name_of_set: str, wheels: str) -> str:
    """Install the wheels once, without the network; again when their set is another, or the environment is gone.

    Nothing is written but the environment and its link, so that the root, wheels and all, may be mounted read-only.
    """
    system = " --system-site-packages" if install.system_packages else ""
    return f"""[Unit]
Description=Install Roadcast from its wheels
ConditionPathExists=!{install.environment}/ready-{name_of_set}
Before={AGENT_UNIT}
RequiresMountsFor={install.environment} {wheels}

[Service]
Type=oneshot
RemainAfterExit=yes
Environment=PIP_NO_CACHE_DIR=1
ExecStart=/bin/sh {setup_script(install)} {install.environment} {name_of_set} {install.python} {wheels}{system}
TimeoutStartSec=1800
"""


def setup_script(install: InstallConfig) -> str:
    """Where the script of `environment` lies."""
    return f"{install.prefix}/set-up.sh"


def camera_rules(install: InstallConfig) -> str:
    """Names for cameras, for udev(7), whose own rules have found out what each is; the first node of each."""
    lines = []
    for name, camera in install.cameras.items():
        facts = {
            "ID_VENDOR_ID": camera.vendor,
            "ID_MODEL_ID": camera.product,
            "ID_SERIAL_SHORT": camera.serial,
            "ID_PATH": camera.port,
        }
        fits = "".join(f', ENV{{{key}}}=="{value}"' for key, value in facts.items() if value is not None)
        lines.append(f'SUBSYSTEM=="video4linux", ATTR{{index}}=="0"{fits}, SYMLINK+="roadcast/{name}"\n')
    return "".join(lines)


def sysusers(install: InstallConfig) -> str:
    """The service's user and its groups, for systemd-sysusers(8)."""
    members = "".join(f"m {install.user} {group}\n" for group in install.groups)
    return f'u {install.user} - "Roadcast device agent" {STATE_DIR}\n{members}'


def tmpfiles(install: InstallConfig, state_dir: str) -> str:
    """Owners of configuration, secrets and state, for systemd-tmpfiles(8): the user has no number before the boot."""
    state = f"d {state_dir} 0750 {install.user} {install.user}\n" if state_dir != STATE_DIR else ""
    return f"Z {CONFIG_DIR} ~0750 root {install.user}\n{state}"


def journal(install: InstallConfig) -> str:
    """The journal's budget; on a card it is synced each quarter of an hour, and at once when it matters."""
    storage = "Storage=volatile\n" if install.volatile_logs else "Storage=persistent\nSyncIntervalSec=15min\n"
    return f"[Journal]\n{storage}SystemMaxUse={install.log_mb}M\nRuntimeMaxUse={install.log_mb}M\n"
