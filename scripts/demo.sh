#!/usr/bin/env bash
# Shows the main job on real data: a folder of 10,000 files or more goes in twice, and both versions
# come out as folders. Installs what is missing; leaves nothing behind but .venv.
#
#   scripts/demo.sh [FOLDER]        (default: this Python's own installation)
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$ROOT/scripts/lib/install.sh"
. "$ROOT/scripts/lib/sample.sh"
FOLDER=
[ $# -eq 0 ] || FOLDER=$(cd "$1" && pwd)

require_fuse
make_venv ""

WORK=$(mktemp -d "${TMPDIR:-/tmp}/versionfs-demo.XXXXXX")
export VERSIONFS_HOME=$WORK/home # store, state, cache: all of it in the temporary folder
export PYTHONDONTWRITEBYTECODE=1 # the data may be the Python that runs this: leave it as it is
unset VERSIONFS_STORE
PATH=$VENV/bin:$PATH

clean_up() {
    trap - EXIT INT TERM
    set +e
    cd /
    if mountpoint -q "$WORK/data" 2>/dev/null; then
        timeout 20 versionfs umount "$WORK/data" >/dev/null 2>&1 ||
            fusermount3 -u -z "$WORK/data" || umount -l "$WORK/data"
    fi
    # A daemon that outlived its mount has an entry in the registry.
    local entry pid
    for entry in "$VERSIONFS_HOME"/state/mounts/*.json; do
        [ -e "$entry" ] || continue
        pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$entry" | sed -n 1p)
        [ -n "$pid" ] && grep -qs versionfs "/proc/$pid/cmdline" && kill "$pid"
    done
    rm -rf --one-file-system "$WORK"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n%s# %s%s\n' "$HEADING" "$*" "$PLAIN"; }
run() { # shows a line of shell, then runs it
    printf '%s$ %s%s\n' "$BOLD" "$1" "$PLAIN"
    eval "$1"
}

cd "$WORK"
mkdir data
SOURCE=${FOLDER:-$(sample_folder "$WORK/first")}
FILES=$(find "$SOURCE" -type f | wc -l)
say "The data: $SOURCE, $FILES files, $(du -sh "$SOURCE" | cut -f1)"

say "It becomes the first version of the repository 'python'"
run "versionfs import $(printf %q "$SOURCE") python -m 'As installed'"

say "A working copy gets a few changes: one file edited, one added, one deleted, one renamed"
cp -a "$SOURCE" second
pick_files second
run "echo '# changed in the second version' >> second/$EDITED"
run "echo 'new in the second version' > second/ADDED.txt"
run "rm second/$DELETED"
run "mv second/$RENAMED second/$RENAMED.old"

say "The second version stores only what is new"
run "versionfs import second python -m 'Four changes'"

say "Every version is a folder"
run "versionfs mount data"
run "ls data"
run "ls data/python"
run "ls data/python/main@~1 | wc -l"
run "ls -x -w 100 data/python/main | sed -n '1,5p'"
run "ls -l data/python/.log/main"
run "grep -rn 'second version' data/python/main/$(dirname "$EDITED") data/python/main/ADDED.txt"
run "tail -n 1 data/python/main@~1/$EDITED data/python/main/$EDITED"

say "What changed, and what it took"
run "versionfs diff --stat python@~1 python"
run "versionfs log python"
run "versionfs stats"

say "Out again; then source, mount and export are compared, byte for byte: no output, no difference"
run "versionfs export python export"
run "diff -r --no-dereference second export"
run "diff -r --no-dereference second data/python/main"
run "diff -r --no-dereference $(printf %q "$SOURCE") data/python/main@~1"

run "versionfs umount data"
say "Done: $FILES files, two versions, no difference."
