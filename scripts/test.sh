#!/usr/bin/env bash
# Installs what is missing (Debian, Ubuntu), then checks and tests everything.
#
#   scripts/test.sh [pytest arguments]
#
# Ends with pytest's summary and exit status; a failed check fails the run as well.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
. scripts/lib/install.sh

# The system packages first: make_venv may be satisfied while a mount would not be.
require_fuse
require_commands getfattr=attr rsync=rsync sqlite3=sqlite3 git=git make=make fio=fio dbench=dbench
make_venv dev
PATH=$VENV/bin:$PATH

failed=()
check() {
    note "$*"
    "$@" || failed+=("$1")
}
check ruff check
check ruff format --check
check mypy
check lint-imports --no-cache
if [ ${#failed[@]} -gt 0 ]; then
    printf '\nFAILED CHECKS: %s (the tests run all the same)\n\n' "${failed[*]}"
fi

# Two at a time; a file's tests stay together. VERSIONFS_TEST_WORKERS=0 runs one after the other.
note "pytest $*"
status=0
python -m pytest -n "${VERSIONFS_TEST_WORKERS:-2}" --dist loadfile "$@" || status=$?
if [ "$status" -eq 0 ] && [ ${#failed[@]} -gt 0 ]; then
    status=1
fi
exit "$status"
