# shellcheck shell=bash
# Machines: test hosts with a kernel of their own, User-Mode Linux in a container (docs/testing.md, "Machines"). Needs image.sh.
# Two things are built once and kept: the container's image with the kernel, and for each Debian release the root file system.

KALLITHEA_MACHINE_USER=ops
# What a Debian host has beside the packages of our bare containers: SSH, sudo, and what a kernel needs.
KALLITHEA_MACHINE_PACKAGES="kmod netbase openssh-server sudo udev"
# Around it: the balance of traffic that a test cuts, the maker of file systems.
KALLITHEA_MACHINE_OUTER_PACKAGES="e2fsprogs nftables"
KALLITHEA_MACHINE_DISK=8G
# The newest kernel is asked first; the older ones panic on processors with AMX.
KALLITHEA_MACHINE_SUITES="unstable testing stable"
KALLITHEA_MACHINE_DIR=$KALLITHEA_USER_CACHE/machine

machine_digest() {
  local hash
  hash=$(cat "$KALLITHEA_ROOT"/scripts/lib/{image.sh,machine.sh,machine_boot.py} | sha256sum)
  echo "${hash:0:12}"
}

machine_tag() { echo "kallithea-machine:$(machine_digest)"; }

machine_root() { echo "$KALLITHEA_MACHINE_DIR/debian$1-$(machine_digest).img"; }

# The keys of the person and of the machines, and the person's password: made once, never in the repository.
machine_keys() {
  mkdir -p "$KALLITHEA_MACHINE_DIR"
  chmod 0700 "$KALLITHEA_MACHINE_DIR"
  need ssh-keygen openssh-client
  local name
  for name in user_key host_key; do
    [ -f "$KALLITHEA_MACHINE_DIR/$name" ] || ssh-keygen -q -t ed25519 -N '' -C kallithea-test -f "$KALLITHEA_MACHINE_DIR/$name"
  done
  [ -f "$KALLITHEA_MACHINE_DIR/password" ] ||
    (umask 077 && head -c 24 /dev/urandom | base64 | tr -d '+/=\n' >"$KALLITHEA_MACHINE_DIR/password")
  printf 'kallithea-test-machine %s\n' "$(cut -d ' ' -f 1,2 "$KALLITHEA_MACHINE_DIR/host_key.pub")" >"$KALLITHEA_MACHINE_DIR/known_hosts"
}

# machine_layer FROM SCRIPT FOLDER: prints the id of a container in which the script has run; it finds the folder at /given.
machine_layer() {
  local container
  container=$(docker create -e "http_proxy=${KALLITHEA_TEST_APT_PROXY:-}" -e DEBIAN_FRONTEND=noninteractive "$1" sh -ec "$2") || return 1
  if quietly docker cp "$3" "$container:/given" && quietly docker start -a "$container"; then
    echo "$container"
    return 0
  fi
  docker rm -f "$container" >/dev/null
  return 1
}

# The container's image with the kernel of a suite.
machine_image_from() {
  local suite=$1 tag=$2 from=$3 given container
  given=$(mktemp -d)
  cp "$KALLITHEA_ROOT/scripts/lib/machine_boot.py" "$given"
  # A mirror that has stood still for a while is good enough for a kernel to test with. Nothing else comes from its suite.
  container=$(machine_layer "$from" "
    echo 'deb [check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main' \
      >/etc/apt/sources.list.d/kernel.list
    apt-get update -q
    apt-get install -q -y --no-install-recommends -o APT::Default-Release=trixie user-mode-linux/$suite $KALLITHEA_MACHINE_OUTER_PACKAGES
    apt-get clean
    rm -rf /var/lib/apt/lists/*
    install -m 0755 /given/machine_boot.py /usr/local/sbin/machine-boot
    printf '#!/bin/sh\nexit 64\n' >/usr/local/sbin/machine-reboot
    chmod 0755 /usr/local/sbin/machine-reboot
    rm -rf /given" "$given/.") || {
    rm -rf "$given"
    return 1
  }
  rm -rf "$given"
  docker commit --change 'ENTRYPOINT ["/usr/local/sbin/machine-boot"]' --change 'CMD []' --change 'ENV http_proxy= DEBIAN_FRONTEND=' \
    "$container" "$tag" >/dev/null || return 1
  docker rm -f "$container" >/dev/null
}

# The guest's root: the bare container's image and what makes it a host.
machine_root_from() {
  local from=$1 tag=$2 target=$3 given container
  given=$(mktemp -d)
  cp "$KALLITHEA_MACHINE_DIR"/{user_key.pub,host_key,host_key.pub,password} "$given"
  container=$(machine_layer "$from" "
    apt-get update -q
    apt-get install -q -y --no-install-recommends $KALLITHEA_MACHINE_PACKAGES
    apt-get clean
    useradd --create-home --shell /bin/bash --groups sudo $KALLITHEA_MACHINE_USER
    echo \"$KALLITHEA_MACHINE_USER:\$(cat /given/password)\" | chpasswd
    install -d -m 0700 -o $KALLITHEA_MACHINE_USER -g $KALLITHEA_MACHINE_USER /home/$KALLITHEA_MACHINE_USER/.ssh
    install -m 0600 -o $KALLITHEA_MACHINE_USER -g $KALLITHEA_MACHINE_USER /given/user_key.pub /home/$KALLITHEA_MACHINE_USER/.ssh/authorized_keys
    rm -f /etc/ssh/ssh_host_*
    install -m 0600 /given/host_key /etc/ssh/ssh_host_ed25519_key
    install -m 0644 /given/host_key.pub /etc/ssh/ssh_host_ed25519_key.pub
    printf 'PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\n' >/etc/ssh/sshd_config.d/machine.conf
    echo 'session optional pam_umask.so nousergroups umask=0027' >>/etc/pam.d/common-session
    printf '/dev/ubda / ext4 noatime 0 0\nnone /usr/lib/modules hostfs ro 0 0\n' >/etc/fstab
    mkdir -p /usr/lib/modules
    # Whoever needs a module this early.
    for unit in systemd-modules-load.service proc-fs-nfsd.mount run-rpc_pipefs.mount; do
      mkdir -p /etc/systemd/system/\$unit.d
      printf '[Unit]\nRequiresMountsFor=/usr/lib/modules\n' >/etc/systemd/system/\$unit.d/machine.conf
    done
    : >/etc/machine-id
    # Nothing is new since the last boot: saves the first one a second or two.
    touch -r /usr /etc/.updated /var/.updated
    rm -f /var/lib/dbus/machine-id
    # The container's stop arrives as the three keys: it means off, as on a host whose power button was pressed.
    ln -sf /usr/lib/systemd/system/poweroff.target /etc/systemd/system/ctrl-alt-del.target
    # Nobody sits at the console.
    systemctl mask getty@.service serial-getty@.service console-getty.service
    systemctl enable systemd-networkd.service systemd-network-generator.service ssh.service
    rm -rf /given" "$given/.") || {
    rm -rf "$given"
    return 1
  }
  rm -rf "$given"
  # Docker mounts files of its own over these three, so that the container cannot write them.
  docker export "$container" | docker run --rm -i --network none --entrypoint sh -v "$KALLITHEA_MACHINE_DIR:/out" "$tag" -ec "
    mkdir /tree
    tar -x -C /tree --numeric-owner
    rm -f /tree/.dockerenv
    echo localhost >/tree/etc/hostname
    echo '127.0.0.1 localhost' >/tree/etc/hosts
    : >/tree/etc/resolv.conf
    mke2fs -q -t ext4 -L root -d /tree /out/$(basename "$target").new $KALLITHEA_MACHINE_DISK
    chmod 0600 /out/$(basename "$target").new" || return 1
  docker rm -f "$container" >/dev/null
  mv "$target.new" "$target"
}

# machine_boots TAG ROOT: it answers by SSH within a minute.
machine_boots() {
  local container address end status=1
  container=$(machine_run "$1" "$2") || return 1
  address=$(docker inspect -f '{{.NetworkSettings.IPAddress}}' "$container")
  end=$((SECONDS + 60))
  while [ "$SECONDS" -lt "$end" ]; do
    if timeout 1 bash -c "exec 3<>/dev/tcp/$address/22 && read -r -t 1 -u 3" 2>/dev/null; then
      status=0
      break
    fi
    sleep 0.5
  done
  [ "$status" -eq 0 ] || docker logs --tail 20 "$container" >&2
  docker rm -f "$container" >/dev/null
  return "$status"
}

# The same options as in molecule/shared/create.yml.
machine_run() {
  docker run -d --label kallithea.test=machine-boot --cap-add NET_ADMIN --device /dev/net/tun --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
    --tmpfs /dev/shm:exec,size=600m -e MACHINE_MEMORY=512 -v "$2:/machine/root.img:ro" "$1"
}

# machine_ensure RELEASE: builds what is missing; sets KALLITHEA_TEST_MACHINE_IMAGE, _ROOT, _DIR and _RESOLVERS.
machine_ensure() {
  local release=$1 tag root from suite
  [ "$(uname -m)" = x86_64 ] || die "Machines are User-Mode Linux, which Debian has for x86-64 only; this is $(uname -m): leave out scenarios and demos with machines."
  tag=$(machine_tag)
  root=$(machine_root "$release")
  machine_keys
  if ! docker image inspect "$tag" >/dev/null 2>&1; then
    from=$(image_ensure 13)
    for suite in $KALLITHEA_MACHINE_SUITES; do
      say "Building the image $tag with the kernel of $suite"
      machine_image_from "$suite" "$tag-$suite" "$from" || die "The image $tag could not be built (see above)."
      [ -f "$root" ] || machine_build_root "$release" "$tag-$suite" "$root"
      if machine_boots "$tag-$suite" "$root"; then
        docker tag "$tag-$suite" "$tag"
      else
        say "The kernel of $suite does not boot here (see above)"
      fi
      docker image rm "$tag-$suite" >/dev/null
      ! docker image inspect "$tag" >/dev/null 2>&1 || break
    done
    docker image inspect "$tag" >/dev/null 2>&1 || die "No kernel of Debian's package user-mode-linux boots on this machine (see above)."
  fi
  [ -f "$root" ] || machine_build_root "$release" "$tag" "$root"
  # Of definitions that nobody uses any more; reading alone need not count as use.
  touch "$root"
  find "$KALLITHEA_MACHINE_DIR" -name '*.img*' -atime +14 -delete
  say "Machines: User-Mode Linux $(machine_kernel "$tag"), root file system $(basename "$root")"
  KALLITHEA_TEST_MACHINE_RESOLVERS=$(machine_resolvers)
  export KALLITHEA_TEST_MACHINE_IMAGE=$tag KALLITHEA_TEST_MACHINE_ROOT=$root KALLITHEA_TEST_MACHINE_DIR=$KALLITHEA_MACHINE_DIR KALLITHEA_TEST_MACHINE_RESOLVERS
}

# machine_of CONTAINER: sets the same to what a machine was made with, for its disk is of no use with another root.
machine_of() {
  KALLITHEA_TEST_MACHINE_IMAGE=$(docker inspect -f '{{.Config.Image}}' "$1")
  KALLITHEA_TEST_MACHINE_ROOT=$(docker inspect -f '{{range .Mounts}}{{if eq .Destination "/machine/root.img"}}{{.Source}}{{end}}{{end}}' "$1")
  KALLITHEA_TEST_MACHINE_RESOLVERS=$(machine_resolvers)
  export KALLITHEA_TEST_MACHINE_IMAGE KALLITHEA_TEST_MACHINE_ROOT KALLITHEA_TEST_MACHINE_DIR=$KALLITHEA_MACHINE_DIR KALLITHEA_TEST_MACHINE_RESOLVERS
}

machine_build_root() {
  local release=$1 tag=$2 root=$3 from
  from=$(image_ensure "$release")
  say "Building the machines' root file system for Debian $release"
  machine_root_from "$from" "$tag" "$root" || die "The machines' root file system could not be built (see above)."
}

machine_kernel() { docker run --rm --network none --entrypoint dpkg-query "$1" -W -f '${Version}' user-mode-linux; }

# What resolves names for this machine; an address of its own loopback would mean the guest itself.
machine_resolvers() {
  local file
  for file in /etc/resolv.conf /run/systemd/resolve/resolv.conf; do
    if grep -E '^nameserver ' "$file" 2>/dev/null | grep -vE ' (127\.|::1)' | awk '{ printf "%s ", $2 }' | grep .; then
      return 0
    fi
  done
  return 0
}
