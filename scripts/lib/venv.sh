# shellcheck shell=bash
# The development tools, pinned, in a virtual environment of their own.

venv_python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

# venv_ensure: makes .cache/venv from requirements/dev.txt where it is missing or older, and puts it first on PATH.
venv_ensure() {
  local python key
  if ! python=$(venv_python); then
    if is_debian; then
      install_packages python3 python3-venv
    fi
    python=$(venv_python) || die "Python 3.11, 3.12 or 3.13 with the venv module is needed (Debian: apt-get install python3-venv)."
  fi
  key=$({ "$python" -c 'import sys; print(sys.version, sys.executable)' && cat "$KALLITHEA_ROOT/requirements/dev.txt"; } | sha256sum)
  if [ "$(cat "$KALLITHEA_CACHE/venv/requirements.sha256" 2>/dev/null)" != "$key" ]; then
    say "Installing the development tools into .cache/venv"
    rm -rf "$KALLITHEA_CACHE/venv"
    mkdir -p "$KALLITHEA_CACHE"
    "$python" -m venv "$KALLITHEA_CACHE/venv"
    quietly "$KALLITHEA_CACHE/venv/bin/pip" install --disable-pip-version-check --no-input -r "$KALLITHEA_ROOT/requirements/dev.txt" ||
      die "pip could not install requirements/dev.txt (see above). Behind a proxy or an own index, set the usual variables (HTTPS_PROXY, PIP_INDEX_URL, PIP_CERT)."
    echo "$key" >"$KALLITHEA_CACHE/venv/requirements.sha256"
  fi
  export PATH="$KALLITHEA_CACHE/venv/bin:$PATH"
  export VIRTUAL_ENV=$KALLITHEA_CACHE/venv
}
