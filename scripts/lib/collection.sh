# shellcheck shell=bash
# The collection as a user gets it: built into a tarball and installed from there.

# collection_ensure TREE: sets ANSIBLE_COLLECTIONS_PATH to a tree that holds our installed tarball; the community's come with the ansible package.
collection_ensure() {
  local tree=$1 build=$1/build
  rm -rf "$build" "$tree/ansible_collections/kallithea"
  mkdir -p "$build" "$tree"
  (cd "$KALLITHEA_ROOT" && quietly ansible-galaxy collection build --force --output-path "$build") ||
    die "The collection cannot be built (see above)."
  ANSIBLE_COLLECTIONS_PATH=$tree quietly ansible-galaxy collection install --offline --no-deps --force -p "$tree" "$build"/kallithea-cluster-*.tar.gz ||
    die "The collection cannot be installed from its tarball (see above)."
  export ANSIBLE_COLLECTIONS_PATH=$tree
}
