# shellcheck shell=bash
# The test hosts' image: bare Debian with systemd and what Ansible needs itself (Python, and for its check mode python3-apt and
# the package lists that any installed system has), nothing else.

KALLITHEA_IMAGE_PACKAGES=systemd,systemd-sysv,dbus,python3,python3-apt,ca-certificates,iproute2
# Packages are unpacked in half the time where dpkg waits for no disk and leaves out what nobody reads here; it stays so in the hosts.
KALLITHEA_IMAGE_DPKG=(force-unsafe-io 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/locale/*' 'path-exclude=/usr/share/man/*')

image_codename() {
  case $1 in
    12) echo bookworm ;;
    13) echo trixie ;;
    *) die "Debian release $1 is not supported: use 12 or 13." ;;
  esac
}

image_tag() {
  local hash
  hash=$(sha256sum <"$KALLITHEA_ROOT/scripts/lib/image.sh")
  echo "kallithea-test:debian$1-${hash:0:12}"
}

image_from_packages() {
  local codename=$1 tag=$2 tar
  need mmdebstrap mmdebstrap
  tar=$(mktemp --suffix=.tar)
  if quietly mmdebstrap --variant=minbase --skip=cleanup/apt/lists --include="$KALLITHEA_IMAGE_PACKAGES" "${KALLITHEA_IMAGE_DPKG[@]/#/--dpkgopt=}" "$codename" "$tar" &&
    quietly docker import "$tar" "$tag"; then
    rm -f "$tar"
    return 0
  fi
  rm -f "$tar"
  return 1
}

# image_ensure RELEASE: builds the image once; prints its tag.
image_ensure() {
  local release=$1 codename tag
  codename=$(image_codename "$release")
  tag=$(image_tag "$release")
  if ! docker image inspect "$tag" >/dev/null 2>&1; then
    say "Building the image $tag"
    image_from_packages "$codename" "$tag" || die "The image $tag could not be built from Debian's packages (see above)."
  fi
  echo "$tag"
}

# image_ca: the build machine's CA bundle, where its environment names one; handed to the hosts read-only.
image_ca() {
  local file=${PIP_CERT:-${SSL_CERT_FILE:-}}
  if [ -n "$file" ] && [ -r "$file" ]; then
    readlink -f -- "$file"
  fi
}
