# The target's half of `roadcast flash --ssh`: what /bin/sh runs there as root. It needs GNU coreutils, and no network.
# look: for every path on stdin, say what lies there; writes nothing. apply: stage every file beside its place, then
# remove what an earlier plan left, rename all that is staged, and tell systemd; whatever fails, what was there before
# comes back. No link is followed.
# A receipt says what a large file's hash was, under its inode, size and times, so that it is not read again and again.
# What was looked at holds until another run begins or ends: `look` tells a stamp, without which `apply` does nothing.
# Paths come on stdin, one a line, and are never part of a command's text.
set -f
umask 022
LC_ALL=C
export LC_ALL
action=$1 root=$2 python=$3 live=$4
nl='
'
phase=$action staged='' renamed='' made='' known='' seen='' told='' receipt='' gone='' emptied='' stuck=''
marker=$root/etc/.roadcast-flash receipts=$root/etc/.roadcast-receipt

stop() {
  printf 'failed %s\n' "$*" >&2
  [ "$phase" != undo ] || exit 96
  [ "$phase" != apply ] || { phase=undo && undo; }
  exit 93
}

unfit() {
  printf 'failed %s\n' "$*" >&2
  exit 95
}

enter() { # go to the folder of $1; $name is what is left of it. Makes folders when $2 is `make`, or returns 1.
  cd -P -- "$root" || stop "$root: cannot be entered"
  name=${1#/}
  while [ "$name" != "${name#*/}" ]; do
    part=${name%%/*}
    name=${name#*/}
    if [ -h "./$part" ] || { [ -e "./$part" ] && [ ! -d "./$part" ]; }; then
      stop "$1: a link or file is in the way; none is followed"
    fi
    if [ ! -d "./$part" ]; then
      [ "$2" = make ] || return 1
      mkdir -m 755 -- "./$part" || stop "$1: its folder cannot be made"
      made=$PWD/$part$nl$made
      sync .
    fi
    cd -P -- "./$part" || stop "$1: its folder cannot be entered"
  done
}

stamp() { # of what a run leaves
  stat --printf '%i:%.9Y:%.9Z,' -- "$marker" "$receipts" "$root/usr/lib/roadcast/installed" 2>/dev/null
}

hash_of() { # $hash of a file
  hash=$(sha256sum <"$1") && hash=${hash%% *}
}

look() { # starts stat and sha256sum once for all files: a run without changes is mostly what programs take to start
  for tool in sha256sum stat head sync readlink mv ln chown uname timeout; do
    command -v "$tool" >/dev/null || unfit "the target has no $tool; install coreutils"
  done
  [ -d "$root/etc" ] || unfit "$root: no root filesystem, for it has no etc"
  [ -e "$root$python" ] || [ -h "$root$python" ] || unfit "the target has no $python; install python3 and python3-venv"
  [ -d "$root/usr/lib/systemd" ] || [ -d "$root/lib/systemd" ] || unfit "the target has no systemd, which starts the agent"
  if [ -e "$marker" ]; then state=pending; else state=clean; fi
  echo "roadcast-flash $state $(uname -m) $(stamp)"
  [ ! -f "$receipts" ] || [ -h "$receipts" ] || receipt=$(cat "$receipts")
  IFS=$nl asked='' unread=''
  set --
  while IFS= read -r path && IFS= read -r want; do
    there=no
    ! enter "$path" look || see
    [ "$there" != file ] || set -- "$@" "$PWD/$name"
    asked=$asked$there$nl$path$nl$want$nl
  done
  facts=''
  [ $# = 0 ] || facts=$(stat -c '%a %u %g %s %i %s %.9Y %.9Z' -- "$@") || stop "a file has gone while it was looked at"
  hashes=''
  for line in $facts; do
    recall "${line#* * * * }" || unread=$unread$1$nl
    hashes=$hashes$hash$nl
    shift
  done
  # shellcheck disable=SC2086 # one a line
  [ -z "$unread" ] || unread=$(sha256sum -- $unread) || stop "a file cannot be read"
  facts=$facts$nl unread=$unread$nl
  while [ -n "$asked" ]; do
    there=${asked%%"$nl"*} asked=${asked#*"$nl"}
    path=${asked%%"$nl"*} asked=${asked#*"$nl"}
    want=${asked%%"$nl"*} asked=${asked#*"$nl"}
    tell
  done
  echo end
}

see() { # what lies there, by what the shell itself can tell
  if [ -h "./$name" ]; then
    there=link
  elif [ -f "./$name" ]; then
    there=file
  elif [ -e "./$name" ]; then
    there=other
  fi
  case $there-$want in
  file-link\ * | other-link\ *) stop "$path: something that is no link is in the way; remove it" ;;
  link-link\ *) ;;
  link-*) stop "$path: a link or file is in the way; none is followed" ;;
  other-*) stop "$path: something that is no file is in the way; remove it" ;;
  esac
}

recall() { # $hash of a file with this inode, size and times, as the receipt has it; a dash when it has not
  hash=-
  case $nl$receipt in
  *"$nl$1 "*)
    hash=${receipt#*"$1 "}
    hash=${hash%%"$nl"*}
    ;;
  esac
  [ "$hash" != - ]
}

tell() {
  case $want in
  link\ *)
    if [ "$there" = no ]; then
      echo 'missing fresh'
    else
      enter "$path" look
      if [ "$(readlink -- "./$name")" = "${want#link }" ]; then echo same; else echo other; fi
    fi
    return
    ;;
  esac
  found='' size=0 line=missing ready=fresh
  if [ "$there" = file ]; then
    line=${facts%%"$nl"*} facts=${facts#*"$nl"}
    found=${hashes%%"$nl"*} hashes=${hashes#*"$nl"}
    if [ "$found" = - ]; then
      found=${unread%%"$nl"*} unread=${unread#*"$nl"}
      found=${found#\\} found=${found%% *}
    fi
    size=${line#* * * } size=${size%% *} line="file $line $found"
  fi
  if [ "$found" != "${want% *}" ] && enter "$path" look && [ -f "./.$name.roadcast" ] && [ ! -h "./.$name.roadcast" ]; then
    hash_of "./.$name.roadcast"
    [ "$hash" != "${want% *}" ] || ready=staged
  fi
  echo "$line $ready"
  if [ -n "$found" ] && [ "$found" != "${want% *}" ] && [ "${want#* }" = show ]; then
    [ "$size" -gt 65536 ] || head -c "$size" -- "./$name"
  fi
}

apply() {
  printf ab | { head -c 1 >/dev/null && [ "$(cat)" = b ]; } || unfit "the target's head reads too far; install coreutils"
  exec 9<"$root/etc"
  if command -v flock >/dev/null; then
    flock -w 20 9 || unfit "another flash is at work on this target, or one whose connection hangs; try again later"
  fi
  IFS= read -r what || exit 94
  [ "$what" = "since $(stamp)" ] || unfit "another flash was at work on this target meanwhile; run it again"
  if [ "$live" = yes ]; then
    "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
      unfit "$python on the target is older than 3.10 or lacks venv; install python3-venv"
    command -v systemctl >/dev/null || unfit "the target has no systemctl"
  fi
  [ ! -h "$marker" ] || unfit "$marker: a link is in the way; remove it"
  : >"$marker" || stop "$marker: cannot be written"
  while IFS= read -r what; do
    if [ "$what" = commit ]; then
      commit
      return
    fi
    IFS= read -r path || exit 94
    case $what in
    kept\ *)
      known="$known- $path$nl"
      [ "$what" = 'kept -' ] || seen=$seen${what#kept }$nl # not as it is now: somebody may have changed it meanwhile
      ;;
    remove) gone=$gone$path$nl known="$known- $path$nl" ;;
    rmdir) emptied=$emptied$path$nl ;;
    *) stage ;;
    esac
  done
  exit 94
}

stage() { # beside the place, complete and on the disk; what is live stays
  enter "$path" make
  beside=./.$name.roadcast
  staged=$staged$path$nl
  mode=${what#* } mode=${mode%% *} sha=${what#* * } sha=${sha%% *}
  case $what in
  link)
    IFS= read -r target || exit 94
    known="$known- $path$nl"
    rm -f -- "$beside"
    ln -s -- "$target" "$beside" || stop "$path: cannot be written"
    return
    ;;
  file\ *)
    rm -f -- "$beside"
    size=${what##* }
    (umask 077 && set -C && head -c "$size" >"$beside") || stop "$path: cannot be written"
    if [ "$(stat -c %s -- "$beside")" != "$size" ]; then
      rm -f -- "$beside"
      exit 94
    fi
    ;;
  ready\ *) ;;
  *) stop "not understood: $what" ;;
  esac
  known="$known$sha $path$nl"
  chown 0:0 -- "$beside" && chmod "$mode" -- "$beside" && sync "$beside" || stop "$path: cannot be written"
}

commit() {
  trap '' HUP INT TERM PIPE
  IFS=$nl
  for path in $gone; do # what an earlier plan left
    enter "$path" look || continue
    [ -f "./$name" ] || [ -h "./$name" ] || continue
    old=./.$name.roadcast-old
    rm -f -- "$old"
    ln -P -- "./$name" "$old" || stop "$path: cannot be kept"
    renamed=$path$nl$renamed
    rm -f -- "./$name" || stop "$path: cannot be removed"
    sync . || stop "$path: cannot be written"
  done
  for path in $staged; do
    enter "$path" look || stop "$path: its folder has gone"
    old=./.$name.roadcast-old
    rm -f -- "$old"
    if [ -e "./$name" ] || [ -h "./$name" ]; then
      ln -P -- "./$name" "$old" || stop "$path: cannot be kept"
    fi
    renamed=$path$nl$renamed
    mv -fT -- "./.$name.roadcast" "./$name" || stop "$path: cannot be replaced"
    sync . || stop "$path: cannot be written"
  done
  [ "$live" != yes ] || tell_systemd
  phase=done
  for path in $known; do
    path=${path#* }
    enter "$path" look && rm -f -- "./.$name.roadcast" "./.$name.roadcast-old"
  done
  for path in $emptied; do
    enter "$path" look && rmdir -- "./$name" 2>/dev/null # unless somebody else has put something in
  done
  write_receipt 2>/dev/null || rm -f -- "$receipts" "$receipts.new"
  rm -f -- "$marker"
  echo applied
}

write_receipt() {
  rm -f -- "$receipts.new"
  (
    umask 077
    set -C
    {
      printf %s "$seen"
      for line in $known; do
        enter "${line#* }" look
        [ "${line%% *}" = - ] || [ "$(stat -c %s -- "./$name")" -le 65536 ] ||
          echo "$(stat -c '%i %s %.9Y %.9Z' -- "./$name") ${line%% *}"
      done
    } >"$receipts.new"
  ) && mv -fT -- "$receipts.new" "$receipts"
}

undo() {
  IFS=$nl
  for path in $renamed; do
    enter "$path" look || continue
    old=./.$name.roadcast-old
    was=$(stat -c %i -- "$old" 2>/dev/null)
    if [ -z "$was" ]; then # there was none
      rm -f -- "./$name"
    elif [ "$was" = "$(stat -c %i -- "./$name" 2>/dev/null)" ]; then # it is there still, under both names
      rm -f -- "$old"
    else
      mv -fT -- "$old" "./$name"
    fi || stuck=$path
  done
  [ -z "$stuck" ] || stop "$stuck: cannot be put back"
  for path in $staged; do
    enter "$path" look && rm -f -- "./.$name.roadcast" "./.$name.roadcast-old"
  done
  cd -P -- "$root" || exit
  for folder in $made; do
    rmdir -- "$folder" 2>/dev/null
  done
  rm -f -- "$marker"
  untell_systemd >/dev/null 2>&1 # why it is taken back has been said
}

root=${root%/}
root=${root:-/}
"$action"
