# shellcheck shell=bash
# All that can be said of the sources without running them on a host.

# Not shebang: the scripts that roles install name the interpreter they need on their host.
KALLITHEA_SANITY_TESTS=(
  ansible-doc compile empty-init ignores import line-endings no-smart-quotes no-assert no-get-exception no-illegal-filenames
  pep8 replace-urlopen runtime-metadata symlinks use-argspec-type-path use-compat-six validate-modules yamllint
)

# check NAME COMMAND...: one linter; all of them run, and lint fails at the end if one did.
check() {
  local name=$1 begin=$SECONDS
  shift
  if quietly "$@"; then
    say "   $name passed ($((SECONDS - begin)) s)"
  else
    say "   $name FAILED ($((SECONDS - begin)) s)"
    LINT_FAILED=1
  fi
}

shell_scripts() {
  {
    printf '%s\n' scripts/lib/*.sh
    grep -rIlE --exclude-dir=.git --exclude-dir=.cache --exclude='*.j2' '^#!.*(/bin/|env )(ba|da)?sh( |$)' . || true
  } | sort -u
}

lint_shell() {
  local scripts
  mapfile -t scripts < <(shell_scripts)
  shellcheck -x "${scripts[@]}"
}

lint_playbooks() {
  local playbook
  for playbook in "$KALLITHEA_ROOT"/playbooks/*.yml; do
    ansible-playbook -i inventories/cluster/hosts.yml --syntax-check "kallithea.cluster.$(basename "$playbook" .yml)" || return 1
  done
  for playbook in inventories/*/site.yml; do
    ansible-playbook -i "$(dirname "$playbook")/hosts.yml" --syntax-check "$playbook" || return 1
  done
}

# plugin_names FOLDER SUFFIX: the full names of what the folder documents.
plugin_names() {
  local file name
  for file in "$1"/*"$2"; do
    name=$(basename "$file" "$2")
    [ ! -e "$file" ] || [ "$name" = __init__ ] || echo "kallithea.cluster.$name"
  done
}

# describes KIND NAME...: Ansible can read the documentation of all of them.
describes() {
  [ "$#" -gt 1 ] || return 0
  ansible-doc -t "$@" >/dev/null
}

lint_documentation() {
  local filters modules role
  mapfile -t filters < <(plugin_names plugins/filter .yml)
  mapfile -t modules < <(plugin_names plugins/modules .py)
  describes filter "${filters[@]}" || return 1
  describes module "${modules[@]}" || return 1
  # A role without tasks takes nothing.
  for role in roles/*/tasks/; do
    role=${role%tasks/}
    ansible-doc -t role "kallithea.cluster.$(basename "$role")" | grep -q . || {
      echo "$role: ansible-doc shows nothing; is meta/argument_specs.yml there?"
      return 1
    }
  done
}

# The tarball holds what users need and nothing else.
lint_contents() {
  local tree=$ANSIBLE_COLLECTIONS_PATH/ansible_collections/kallithea/cluster entry
  for entry in README.md LICENSE meta/runtime.yml changelogs/config.yaml playbooks/site.yml roles plugins; do
    [ -e "$tree/$entry" ] || {
      echo "The tarball lacks $entry"
      return 1
    }
  done
  for entry in tests molecule scripts inventories .ci .cache requirements; do
    [ ! -e "$tree/$entry" ] || {
      echo "The tarball holds $entry: add it to build_ignore in galaxy.yml"
      return 1
    }
  done
  local role
  for role in "$tree"/roles/*/; do
    [ -f "$role/README.md" ] || {
      echo "$(basename "$role") has no README.md"
      return 1
    }
  done
}

# sanity_bootstrap FOLDER: puts there what ansible-test would fetch from a host of its own: a script that installs pip. Python brings one.
sanity_bootstrap() {
  local version
  version=$(python3 -c '
import re, sys, ansible_test._internal.python_requirements as module
found = re.search(r"pip=.([0-9.]+).,", open(module.__file__).read())
print(found[1].replace(".", "_") if found else sys.exit("ansible-test does not say which pip it wants"))')
  mkdir -p "$1"
  cat >"$1/get_pip_$version.py" <<END
import ensurepip, os, subprocess, sys
ensurepip.bootstrap(default_pip=True)
environment = {**os.environ, **{key: value for key, value in {"PIP_CERT": "$(image_ca)", "PIP_INDEX_URL": "${PIP_INDEX_URL:-}"}.items() if value}}
wanted = [word for word in sys.argv[1:] if "==" in word]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *wanted], env=environment))
END
}

# ansible-test wants a Git tree at ansible_collections/NAMESPACE/NAME; the tarball's contents are what has to be sane.
lint_sanity() {
  local tree=$KALLITHEA_CACHE/sanity/ansible_collections/kallithea/cluster version tests=() one
  rm -rf "$KALLITHEA_CACHE/sanity"
  mkdir -p "$tree"
  cp -R "$ANSIBLE_COLLECTIONS_PATH/ansible_collections/kallithea/cluster/." "$tree"
  rm -f "$tree/MANIFEST.json" "$tree/FILES.json"
  cp "$KALLITHEA_ROOT/galaxy.yml" "$tree"
  git -C "$tree" init -q
  git -C "$tree" add -A
  sanity_bootstrap "$KALLITHEA_CACHE/sanity-home/.ansible/test/cache"
  version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  for one in "${KALLITHEA_SANITY_TESTS[@]}"; do tests+=(--test "$one"); done
  (cd "$tree" && HOME=$KALLITHEA_CACHE/sanity-home ansible-test sanity --local --python "$version" --color no "${tests[@]}") \
    >"$KALLITHEA_CACHE/sanity/log" 2>&1 || {
    grep -E '^(ERROR|FATAL)' "$KALLITHEA_CACHE/sanity/log" || cat "$KALLITHEA_CACHE/sanity/log"
    return 1
  }
}

# ended PROCESS LOG: waits for a linter in the background; its words are shown where it failed.
ended() {
  wait "$1" || {
    cat "$2"
    return 1
  }
}

# lint_ensure: what lint needs; not lint itself, beside which others use the same.
lint_ensure() {
  need shellcheck shellcheck
  need git git
  collection_ensure "$KALLITHEA_CACHE/test/collections"
}

lint() {
  local sanity log=$KALLITHEA_CACHE/test/sanity.log
  LINT_FAILED=0
  # The longest by far, on a core of its own.
  lint_sanity >"$log" 2>&1 &
  sanity=$!
  check yamllint yamllint --strict .
  # An inventory, since a play may take its hosts from a group.
  check ansible-lint env ANSIBLE_INVENTORY="$KALLITHEA_ROOT/inventories/cluster/hosts.yml" ansible-lint --offline --nocolor
  check "ruff check" ruff check --no-cache --output-format concise .
  check "ruff format" ruff format --no-cache --check .
  check mypy mypy --no-incremental
  check shellcheck lint_shell
  check antsibull-changelog antsibull-changelog lint
  check "tarball's contents" lint_contents
  check "tarball's playbooks" lint_playbooks
  check "tarball's documentation" lint_documentation
  check "ansible-test sanity" ended "$sanity" "$log"
  return "$LINT_FAILED"
}
