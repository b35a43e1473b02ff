"""What is run inside of pods: shell, as that is all an image can be hoped to have. Pure.

A cluster runs a list of words in a container and no more. What commands need beyond that (a working
directory, variables, an end that is not put off by children who hold the output open, all processes
they have started) a few lines of POSIX shell do, which use what any shell has built in wherever
there may be no process left to start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHELL = "/bin/sh"
MARK = "STEWARD_COMMAND"
"""The variable that tells which command a process belongs to."""
MARK_PREFIX = "steward-"
OWN_NAME = "_st_say"
"""What only the text of `RUN` has in it."""
ANY_MARK = f"{MARK}={MARK_PREFIX}"
RECORD = "\x1e"
"""What the records of `RUN` begin and end with."""

RUN = r"""
_st_n='
'
_st_say() { printf '\036%s %s\036' "$_st_t" "$1" >&"$_st_o"; }
_st_feed() {
  /bin/sh -c 'echo $PPID'
  case $(head --version 2>&1 </dev/null) in *coreutils*) _st_h=1 ;; *) _st_h= ;; esac
  while IFS= read -r _st_k && [ "$_st_k" -gt 0 ]; do
    if [ "$_st_h" ]; then head -c "$_st_k"; else dd bs=1 count="$_st_k"; fi || break
  done
}
_st_t= _st_o=2 _st_d= _st_f=
if [ $# -gt 0 ]; then _st_l=$1 _st_o=1; else IFS= read -r _st_l || exit 125; fi
eval "$_st_l"
_st_l=
if [ -n "$_st_d" ]; then cd "$_st_d" 2>/dev/null || { _st_say D; exit 125; }
elif [ "$PWD" = / ]; then cd /workspace 2>/dev/null || :; fi
case $1 in
*/*) [ -f "$1" ] && [ -x "$1" ] || { _st_say X; exit 127; } ;;
*)
  _st_x=
  set -f
  IFS=:
  for _st_p in $PATH; do [ -f "$_st_p/$1" ] && [ -x "$_st_p/$1" ] && _st_x=1 && break; done
  unset IFS
  set +f
  [ "$_st_x" ] || { _st_say X; exit 127; } ;;
esac
_st_say "R $$"
trap : INT QUIT
exec 4>&2 2>/dev/null
[ "$_st_o" = 1 ] || _st_o=4
if [ "$_st_f" ]; then
  exec 3<&0
  _st_feed <&3 3<&- 4>&- | {
    exec 3<&-
    IFS= read -r _st_q
    ( exec 2>&4 4>&-; _st_run "$@" )
    _st_c=$?
    kill "$_st_q"
    _st_say "E $_st_c"
    exit "$_st_c"
  }
  exit $?
fi
( exec 2>&4 4>&-; _st_run "$@" )
_st_c=$?
_st_say "E $_st_c"
exit "$_st_c"
"""
"""Runs a command. What to run is a line of shell: the first of its input, or its argument where the
input is a terminal. It tells of itself in records: R and its pid once the command runs, E and the
exit code at its end; D or X if there is no such directory or program. Its variables have names that
no command's have, or that one's would be changed; and what a shell has to say of a child that was
killed it says to nobody.

Where the input cannot be closed from outside (`f`), it comes in frames: a line with a length, then
as many bytes; a length of 0 ends it. `head` of coreutils takes just what it is told; others read
ahead, and then it goes byte by byte.
"""

END = r"""
m=$2$1 s=$3 w=$4 n=0
has() {
  while IFS= read -r l || [ -n "$l" ]; do
    case $l in *"$m"*) return 0 ;; esac
    l=
  done < "$1"
  return 1
}
for d in /proc/[0-9]*; do
  p=${d#/proc/}
  [ "$p" != "$$" ] || continue
  if { has "$d/environ"; } 2>/dev/null || { [ "$w" ] && has "$d/cmdline"; } 2>/dev/null; then
    if [ "$p" -gt 1 ] && kill -"$s" "$p" 2>/dev/null; then n=$((n+1)); fi
  fi
done
echo "$n"
"""
"""Sends a signal to all processes of a command, and to who runs it if $4 says so; without a fork,
as a command that has used up all processes is ended by it too. Says how many there were."""

PROCESSES = r"""
while read -r k v _; do [ "$k" = btime ] && echo "$v"; done < /proc/stat
for d in /proc/[0-9]*; do
  p=${d#/proc/}
  [ "$p" != "$$" ] || continue
  { IFS= read -r s < "$d/stat"; } 2>/dev/null || continue
  u=
  { while read -r k v _; do [ "$k" = Uid: ] && u=$v && break; done < "$d/status"; } 2>/dev/null
  printf '%s\n%s\n' "$s" "$u"
  { tr '\000\n' '  ' < "$d/cmdline"; } 2>/dev/null
  echo
done
"""
"""The boot time, then three lines for each process: its stat, its user, its command."""

SIGNAL = r"""
[ -d "/proc/$1" ] && [ "$1" != "$$" ] || { echo gone; exit; }
kill -"$2" "$1" 2>&1 || { [ -d "/proc/$1" ] || echo gone; }
"""

USE = r"""
for d in /proc/[0-9]*; do echo p; done
for f in /sys/fs/cgroup/memory.current /sys/fs/cgroup/memory/memory.usage_in_bytes; do
  { read -r v < "$f" && echo "memory $v"; } 2>/dev/null
done
{
  while read -r k v; do [ "$k" = usage_usec ] && echo "cpu_us $v"; done < /sys/fs/cgroup/cpu.stat
} 2>/dev/null
{ read -r v < /sys/fs/cgroup/cpuacct/cpuacct.usage && echo "cpu_ns $v"; } 2>/dev/null
:
"""
"""A line for each process, and what the container has used as far as it may know itself."""


def quoted(text: str) -> str:
    """A text as one word on one line of shell; RUN has a line end in `_st_n`."""
    return "'" + text.replace("'", "'\\''").replace("\n", "'\"$_st_n\"'") + "'"


def order(
    argv: Sequence[str],
    *,
    token: str,
    mark: str,
    env: Mapping[str, str],
    working_dir: str,
    has_frames: bool,
) -> str:
    """The line that tells RUN what to run."""
    parts = [f"_st_t={token}"]
    if working_dir:
        # A name that begins with a dash, or is one, would be an option.
        folder = working_dir if working_dir.startswith("/") else f"./{working_dir}"
        parts.append(f"_st_d={quoted(folder)}")
    if has_frames:
        parts.append("_st_f=1")
    if "PATH" in env:
        parts.append(f"PATH={quoted(env['PATH'])}")
    # `env` takes any name and value, where a shell has names of its own that it defends.
    words = [quoted(f"{name}={value}") for name, value in {**env, MARK: mark}.items()]
    if "=" in argv[0]:
        words += [SHELL, "-c", quoted('exec "$@"'), "sh"]
    parts.append(f'_st_run() {{ exec env {" ".join(words)} "$@"; }}')
    parts.append(f"set -- {' '.join(map(quoted, argv))}")
    return "; ".join(parts)


def frame(data: bytes) -> bytes:
    """Input as RUN takes it where it cannot be closed."""
    return b"%d\n" % len(data) + data
