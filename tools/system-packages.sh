#!/usr/bin/env bash
# Installs what the tests use of the system, on Debian and what descends from it: a container engine
# with its parts, bwrap, gVisor's runsc, Chromium, busybox and jq. Nothing is started. Elsewhere it says what
# is missing, and the tests say it again.
set -euo pipefail

packages=()
for program in podman conmon catatonit chromium busybox jq; do
  command -v "$program" >/dev/null || packages+=("$program")
done
command -v bwrap >/dev/null || packages+=(bubblewrap)
# Debian has gVisor for some architectures, and the class for one: elsewhere its tests are skipped.
if [[ $(uname -m) == x86_64 ]] && ! command -v runsc >/dev/null; then
  packages+=(runsc)
fi
command -v crun >/dev/null || command -v runc >/dev/null || packages+=(crun)

if ((${#packages[@]} == 0)); then
  exit 0
fi
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
  echo "missing: ${packages[*]}; install them as your system does" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}"
