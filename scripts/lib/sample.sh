# Finds real data for the demo. Sourced by bash.

ENOUGH_FILES=10000

count_files() { find "$1" -type f 2>/dev/null | wc -l; }

# sample_folder SPARE: prints a folder of at least ENOUGH_FILES files: the first of this Python's
# library and its installation that is large enough. Where both are small (Debian's), the folder
# SPARE is filled with copies of real folders until it is.
sample_folder() {
    local folder
    while IFS= read -r folder; do
        if [ "$(count_files "$folder")" -ge "$ENOUGH_FILES" ]; then
            printf '%s\n' "$folder"
            return
        fi
    done < <("$VENV/bin/python" - <<'END'
import sys, sysconfig
print(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
if sys.base_prefix not in ("/", "/usr", "/usr/local"):  # those are not Python's alone
    print(sys.base_prefix)
END
    )
    mkdir "$1"
    local stdlib
    stdlib=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    for folder in "$stdlib" "$VENV/lib" /usr/share /usr/lib; do
        # Files that may not be read are left out here, so that the import has none.
        cp -a "$folder" "$1/" 2>/dev/null || true
        find "$1" -type d ! -perm -u+rwx -exec chmod u+rwx {} +
        if [ "$(count_files "$1")" -ge "$ENOUGH_FILES" ]; then
            printf '%s\n' "$1"
            return
        fi
    done
    fail "this machine has no folder of $ENOUGH_FILES files; name one: scripts/demo.sh FOLDER"
}

# pick_files FOLDER: sets EDITED, DELETED and RENAMED to three small files, relative to the folder;
# in a Python library these are readable ones.
pick_files() {
    local files
    mapfile -t files < <(cd "$1" && find . -type f -path '*/json/*.py' -size -64k | LC_ALL=C sort)
    if [ ${#files[@]} -lt 3 ]; then
        mapfile -t files < <(cd "$1" && find . -type f -size -64k -regex '[A-Za-z0-9_./-]*' | LC_ALL=C sort)
    fi
    [ ${#files[@]} -ge 3 ] || fail "the folder has too few small files with plain names for the demo"
    EDITED=${files[0]#./}
    DELETED=${files[1]#./}
    RENAMED=${files[2]#./}
}
