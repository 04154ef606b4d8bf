# shellcheck shell=bash
# The demo's names in /etc/hosts, between markers of our own.

KALLITHEA_HOSTS_FILE=${KALLITHEA_HOSTS_FILE:-/etc/hosts}
KALLITHEA_HOSTS_BEGIN='# BEGIN kallithea.cluster demo'
KALLITHEA_HOSTS_END='# END kallithea.cluster demo'

hosts_block() { printf '%s\n%s %s\n%s\n' "$KALLITHEA_HOSTS_BEGIN" "$1" "${*:2}" "$KALLITHEA_HOSTS_END"; }

hosts_without_block() {
  awk -v begin="$KALLITHEA_HOSTS_BEGIN" -v end="$KALLITHEA_HOSTS_END" \
    '$0 == begin { skip = 1 } !skip { print } $0 == end { skip = 0 }' "$KALLITHEA_HOSTS_FILE"
}

# Written in place: in a container the file is a mount point, which nothing can be moved onto.
hosts_write() {
  local text=$1
  [ "$text" = "$(cat "$KALLITHEA_HOSTS_FILE")" ] || printf '%s\n' "$text" >"$KALLITHEA_HOSTS_FILE"
}

# hosts_add ADDRESS NAME...: puts the names there, or prints the lines where that is not allowed.
hosts_add() {
  if [ -w "$KALLITHEA_HOSTS_FILE" ]; then
    hosts_write "$(hosts_without_block && hosts_block "$@")"
  elif ! grep -qxF "$1 ${*:2}" "$KALLITHEA_HOSTS_FILE"; then
    printf 'You may not write %s. Put these lines there, so that the names work on this machine:\n' "$KALLITHEA_HOSTS_FILE"
    hosts_block "$@"
  fi
}

hosts_remove() {
  grep -qxF "$KALLITHEA_HOSTS_BEGIN" "$KALLITHEA_HOSTS_FILE" || return 0
  if [ -w "$KALLITHEA_HOSTS_FILE" ]; then
    hosts_write "$(hosts_without_block)"
  else
    printf 'You may not write %s. Remove the lines between "%s" and "%s" from it.\n' \
      "$KALLITHEA_HOSTS_FILE" "$KALLITHEA_HOSTS_BEGIN" "$KALLITHEA_HOSTS_END"
  fi
}
