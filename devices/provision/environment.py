"""Installing the wheels on the board: a script for its shell. Pure.

Every set of wheels has an environment of its own, `LINK-SET`, built beside the one in use; only a complete one is
linked to. A full disk, a wheel that rotted or a power cut leaves the agent what it had.
"""

from __future__ import annotations

from typing import Final

SETUP_SCRIPT: Final = r"""# Puts wheels into an environment of their own beside the one in use, then swaps the link.
# sh set-up.sh LINK SET PYTHON WHEELS [OPTION OF VENV]...
# sh set-up.sh LINK: takes away what the link does not lead to.
set -eu
link=$1

tidy() { # environments are called after their set, 16 hexadecimal digits
  for other in "$link"-????????????????; do
    case ${other#"$link"-} in *[!0-9a-f]*) continue ;; esac
    [ "$other" = "$(readlink -- "$link")" ] || [ ! -f "$other/pyvenv.cfg" ] || rm -rf -- "$other"
  done
}

lead() {
  ln -sfn -- "$new" "$link-next"
  mv -fT -- "$link-next" "$link"
}

if [ $# = 1 ]; then
  tidy
  exit 0
fi
set=$2 new=$link-$2 python=$3 wheels=$4
shift 4
if [ "$(readlink -- "$link")" != "$new" ] && [ -f "$new/ready-$set" ]; then # back to the one before, still whole
  lead
  exit 0
fi
[ "$(readlink -- "$link")" != "$new" ] || rm -f -- "$link" # its mark is gone: it is damaged
tidy
trap 'rm -rf -- "$new"' EXIT
"$python" -m venv --clear "$@" "$new"
"$new/bin/python" -m pip install --no-index --find-links "$wheels" --require-hashes -r "$wheels/requirements.txt"
sync -f "$new"
: >"$new/ready-$set"
sync -f "$new"
if [ -d "$link" ] && [ ! -h "$link" ]; then # as Roadcast made it before there were links
  mv -T -- "$link" "$link-0000000000000000"
fi
lead
trap - EXIT
"""
