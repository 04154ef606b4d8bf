# shellcheck shell=bash
# A Docker engine: the one that answers, or one that we start, remember and stop again.

KALLITHEA_ENGINE_STATE=$KALLITHEA_CACHE/engine

engine_answers() { have docker && docker info >/dev/null 2>&1; }

engine_wait() {
  local _
  for _ in $(seq 1 120); do
    engine_answers && return 0
    sleep 0.5
  done
  return 1
}

# engine_ensure OWNER: OWNER (demo or test) is written down as the one that stops what is started here.
engine_ensure() {
  local owner=$1 pid
  mkdir -p "$KALLITHEA_ENGINE_STATE"
  if engine_answers; then
    return 0
  fi
  if have docker && ! [ "$(id -u)" -eq 0 ] && [ -S /var/run/docker.sock ]; then
    die "Docker runs, but $(id -un) may not use it: join the group docker (usermod -aG docker $(id -un), then log in again) or run this as root."
  fi
  if [ "$(id -u)" -ne 0 ]; then
    die "No Docker engine answers. Start one (systemctl start docker) and join the group docker, or run this as root on Debian."
  fi
  if ! have dockerd; then
    install_packages docker.io iptables
  fi
  # Debian 13 has the client in a package of its own.
  have docker || install_packages docker-cli
  if [ -d /run/systemd/system ]; then
    say "Starting Docker"
    systemctl start docker.service || die "systemctl start docker failed: see journalctl -u docker."
    echo systemd >"$KALLITHEA_ENGINE_STATE/$owner"
  else
    say "Starting a Docker engine (log: $KALLITHEA_ENGINE_STATE/dockerd.log)"
    setsid dockerd >"$KALLITHEA_ENGINE_STATE/dockerd.log" 2>&1 </dev/null 9>&- &
    pid=$!
    echo "$pid" >"$KALLITHEA_ENGINE_STATE/$owner"
  fi
  engine_wait || {
    tail -n 20 "$KALLITHEA_ENGINE_STATE/dockerd.log" >&2 2>/dev/null || true
    die "The Docker engine does not answer after 60 s (see above)."
  }
}

# engine_release OWNER: stops the engine if OWNER started it and nobody else's containers run on it.
engine_release() {
  local owner=$1 state
  [ -f "$KALLITHEA_ENGINE_STATE/$owner" ] || return 0
  state=$(cat "$KALLITHEA_ENGINE_STATE/$owner")
  if engine_answers && [ -n "$(docker ps -q)" ]; then
    say "The Docker engine stays: containers run on it ($(docker ps --format '{{.Names}}' | tr '\n' ' '))"
    return 0
  fi
  rm -f "$KALLITHEA_ENGINE_STATE/$owner"
  if [ "$state" = systemd ]; then
    systemctl stop docker.socket docker.service
  elif pid_is "$state" dockerd; then
    stop_process "$state" dockerd
  fi
  say "The Docker engine is stopped"
}

# cluster_remove NAME: the containers, volumes and network that molecule/shared/create.yml has made by that name.
cluster_remove() {
  docker ps -aq --filter "label=kallithea.test=$1" | xargs -r docker rm -f -v >/dev/null
  docker volume ls -q --filter "label=kallithea.test=$1" | xargs -r docker volume rm >/dev/null
  docker network ls -q --filter "name=^$1\$" | xargs -r docker network rm >/dev/null
}
