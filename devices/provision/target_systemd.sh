# The end of target.sh's `apply` on a running system: what systemd is told, and how that is taken back.
units=/etc/systemd/system agent=roadcast-agent.service

tell_systemd() { # the agent last: the old one runs until the wheels are installed
  told=files begun=$(date +%s)
  systemd-sysusers "$root/etc/sysusers.d/roadcast.conf" &&
    systemd-tmpfiles --create "$root/etc/tmpfiles.d/roadcast.conf" &&
    systemctl daemon-reload || stop "systemd did not take it"
  set_up || refused roadcast-setup.service "the wheels could not be installed; the old agent runs on"
  told=units
  for path in $gone; do
    [ "${path%/*}" != $units ] || systemctl stop "${path##*/}" 2>/dev/null
  done
  start_units || stop "udev did not take the rules for the cameras"
  # ready is what systemd waits for; one that falls right after it is seen as well
  timeout 300 systemctl restart $agent && sleep 3 && systemctl is-active --quiet $agent ||
    refused $agent "the agent does not start with what was written"
}

refused() { # what the service itself has said, then that it failed
  journalctl "_SYSTEMD_UNIT=$1" --since "@$begun" -n 3 -o cat --no-pager -q >&2
  stop "$2"
}

set_up() {
  [ ! -e "$root$units/roadcast-setup.service" ] || systemctl restart roadcast-setup.service
}

start_units() {
  for unit in roadcast-power.service roadcast-renew.timer roadcast-enrol.service; do
    [ ! -e "$root$units/$unit" ] || systemctl restart --no-block "$unit"
  done
  case $nl$staged$gone in
  *"${nl}/etc/udev/rules.d/70-roadcast.rules$nl"*)
    ! command -v udevadm >/dev/null ||
      { udevadm control --reload && udevadm trigger --subsystem-match=video4linux; }
    ;;
  esac
}

untell_systemd() { # once the old files are back: what only the new ones had is stopped, the rest runs with the old
  [ -n "$told" ] || return 0
  systemctl daemon-reload
  [ "$told" = units ] || return 0
  for path in $renamed; do
    [ "${path%/*}" != $units ] || [ -e "$root$path" ] || systemctl stop "${path##*/}" 2>/dev/null
  done
  set_up
  start_units
  [ ! -e "$root$units/$agent" ] || systemctl restart --no-block $agent
}

