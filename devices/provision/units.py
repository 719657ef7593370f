"""Texts for systemd: the agent's service, its set-up, its user, the journal's budget. Pure."""

from __future__ import annotations

from devices.provision.site import CONFIG_DIR, STATE_DIR, InstallConfig

AGENT_UNIT = "roadcast-agent.service"
SETUP_UNIT = "roadcast-setup.service"
RENEW_UNIT = "roadcast-renew.service"
RENEW_TIMER = "roadcast-renew.timer"


def agent_unit(install: InstallConfig, state_dir: str) -> str:
    """The agent as a service: watched, restarted, and without rights that it does not need.

    A wrong configuration (exit 78) or command line (2) is not tried again. `ProtectClock` is left out: it would also
    close every camera to the service.
    """
    needs_setup = f"Requires={SETUP_UNIT}\nAfter={SETUP_UNIT}\n" if install.wheels is not None else ""
    elsewhere = f"ReadWritePaths={state_dir}\n" if state_dir != STATE_DIR else ""
    return f"""[Unit]
Description=Roadcast device agent
Wants=network-online.target
After=network-online.target time-sync.target
{needs_setup}StartLimitIntervalSec=0

[Service]
Type=notify
User={install.user}
ExecStart={install.prefix}/venv/bin/roadcast client run --config {CONFIG_DIR}/device.yaml
Restart=always
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
    return f"""[Unit]
Description=Renew the certificate of the Roadcast device
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
Type=oneshot
User={install.user}
ExecStart={install.prefix}/venv/bin/roadcast client renew --config {CONFIG_DIR}/device.yaml
UMask=0027
ReadWritePaths={state_dir}
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
"""


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


def setup_unit(install: InstallConfig, ready: str, wheels: str) -> str:
    """Install the wheels once, without the network; again when `ready`, which names the set of wheels, is another."""
    system = " --system-site-packages" if install.system_packages else ""
    return f"""[Unit]
Description=Install Roadcast from its wheels
ConditionPathExists=!{ready}
Before={AGENT_UNIT}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={install.python} -m venv --clear{system} {install.prefix}/venv
ExecStart={install.prefix}/venv/bin/python -m pip install --no-index --find-links {wheels} roadcast
ExecStart=/bin/touch {ready}
TimeoutStartSec=1800
"""


def sysusers(install: InstallConfig) -> str:
    """The service's user and its groups, for systemd-sysusers(8)."""
    members = "".join(f"m {install.user} {group}\n" for group in install.groups)
    return f'u {install.user} - "Roadcast device agent" {STATE_DIR}\n{members}'


def tmpfiles(install: InstallConfig, state_dir: str) -> str:
    """Owners of configuration, secrets and state, for systemd-tmpfiles(8): the user has no number before the boot."""
    state = f"d {state_dir} 0750 {install.user} {install.user}\n" if state_dir != STATE_DIR else ""
    return f"Z {CONFIG_DIR} ~0750 root {install.user}\n{state}"


def journal(install: InstallConfig) -> str:
    """The journal's budget."""
    storage = "Storage=volatile\n" if install.volatile_logs else ""
    return f"[Journal]\n{storage}SystemMaxUse={install.log_mb}M\nRuntimeMaxUse={install.log_mb}M\n"
