# shellcheck shell=bash
# A cache for Debian's packages on the Docker bridge's address, which every Docker network reaches; hosts do without where it does not answer.

KALLITHEA_PACKAGE_CACHE_PID=

# packages_start PORT: starts the cache; sets KALLITHEA_TEST_APT_PROXY, empty where that is not possible.
packages_start() {
  local port=$1 address _
  export KALLITHEA_TEST_APT_PROXY=""
  # An engine that was never told a gateway does not name it; it is the subnet's first address.
  address=$(docker network inspect bridge | python3 -c '
import ipaddress, json, sys
config = json.load(sys.stdin)[0]["IPAM"]["Config"][0]
print(config.get("Gateway") or ipaddress.ip_network(config["Subnet"])[1])' 2>/dev/null) || return 0
  [ -n "$address" ] || return 0
  setsid python3 "$KALLITHEA_ROOT/scripts/lib/package_cache.py" --directory "$KALLITHEA_USER_CACHE/apt" \
    --address "$address" --port "$port" --parent $$ >/dev/null 2>&1 </dev/null 9>&- &
  KALLITHEA_PACKAGE_CACHE_PID=$!
  for _ in $(seq 1 50); do
    if ! kill -0 "$KALLITHEA_PACKAGE_CACHE_PID" 2>/dev/null; then
      KALLITHEA_PACKAGE_CACHE_PID=
      say "No package cache: $address:$port is not free; going on without"
      return 0
    fi
    if (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; then
      export KALLITHEA_TEST_APT_PROXY=http://$address:$port
      return 0
    fi
    sleep 0.1
  done
  packages_stop
}

packages_stop() {
  [ -n "$KALLITHEA_PACKAGE_CACHE_PID" ] || return 0
  stop_process "$KALLITHEA_PACKAGE_CACHE_PID" "the package cache"
  KALLITHEA_PACKAGE_CACHE_PID=
}
