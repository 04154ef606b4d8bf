# shellcheck shell=bash
# What scripts/demo and scripts/test have in common: places, words, stages.

KALLITHEA_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
KALLITHEA_CACHE=$KALLITHEA_ROOT/.cache
KALLITHEA_USER_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/kallithea.cluster
export KALLITHEA_ROOT KALLITHEA_CACHE KALLITHEA_USER_CACHE

say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }

die() {
  printf 'ERROR: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a noisy command quietly; what it said is shown only when it fails.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    tail -n 60 "$log" >&2
  fi
  rm -f "$log"
  return "$status"
}

is_debian() { [ -f /etc/debian_version ] && have apt-get; }

# install_packages PACKAGE...: those of them that dpkg does not know.
install_packages() {
  local package missing=()
  is_debian || die "This system is not Debian: install these yourself, then run this again: $*"
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  [ "$(id -u)" -eq 0 ] || die "Packages are missing; as root run: apt-get install --no-install-recommends ${missing[*]}"
  say "Installing ${missing[*]}"
  if [ -z "${KALLITHEA_APT_UPDATED:-}" ]; then
    quietly apt-get update -q || die "apt-get update failed (see above): this machine needs a Debian mirror."
    KALLITHEA_APT_UPDATED=1
  fi
  DEBIAN_FRONTEND=noninteractive quietly apt-get install -q -y --no-install-recommends "${missing[@]}" ||
    die "apt-get could not install ${missing[*]} (see above)."
}

# need COMMAND PACKAGE: installs the package only where the command is missing.
need() { have "$1" || install_packages "$2"; }

# stop_process PID WHAT: ends one process that we started, and waits for it.
stop_process() {
  local pid=$1 what=$2 _
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 1 150); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.2
  done
  printf 'WARNING: %s (process %s) does not end.\n' "$what" "$pid" >&2
}

# pid_is PID NAME: the process still is the one that we started, not a later one with its number.
pid_is() {
  [ -n "$1" ] && [ -r "/proc/$1/cmdline" ] && tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF -- "$2"
}

# only_one FILE WHAT: refuses a second run beside this one, for two would remove each other's hosts. Who starts something that
# outlives the script closes descriptor 9 for it.
only_one() {
  have flock || return 0
  mkdir -p "$(dirname "$1")"
  exec 9>"$1"
  flock -n 9 || die "$2 runs already on this machine (the test hosts' names are the same everywhere); wait until it has ended."
}
