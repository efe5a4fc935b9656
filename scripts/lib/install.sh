# Install steps that scripts/test.sh and scripts/demo.sh share. Sourced by bash, under `set -eu`.
# Everything here does nothing when there is nothing to do. Progress goes to standard error.

# Colours, where somebody looks: on a terminal.
BOLD='' HEADING='' PLAIN=''
if [ -t 1 ]; then
    BOLD=$'\033[1m' HEADING=$'\033[1;36m' PLAIN=$'\033[0m'
fi

note() { printf '· %s\n' "$*" >&2; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root, and there is no sudo: $*"
    fi
}

retry_once() {
    "$@" || {
        note "failed, trying once more: $*"
        sleep 3
        "$@"
    }
}

# install_packages PACKAGE...: installs Debian or Ubuntu packages.
install_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "please install what these Debian packages have: $*"
    note "installing system packages: $*"
    retry_once as_root apt-get update -qq >&2
    retry_once as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >&2
}

# require_commands COMMAND=PACKAGE...: installs the packages whose command is missing.
require_commands() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    install_packages ${missing[@]+"${missing[@]}"}
}

# What pyfuse3 needs to be built (pip has no binary of it) and to mount.
require_fuse() {
    local missing=()
    command -v fusermount3 >/dev/null || missing+=(fuse3)
    command -v gcc >/dev/null || missing+=(gcc libc6-dev)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    pkg-config --exists fuse3 2>/dev/null || missing+=(libfuse3-dev)
    install_packages ${missing[@]+"${missing[@]}"}
}

python_is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python_is_complete() {
    "$1" - 2>/dev/null <<'END'
import ensurepip, os, sys, sysconfig, venv
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
END
}

# Sets PYTHON to a Python of at least 3.11 that can make virtual environments and has its headers.
find_python() {
    local candidate usable=""
    for candidate in python3.13 python3.12 python3.11 python3 /usr/bin/python3; do
        command -v "$candidate" >/dev/null && python_is_new_enough "$candidate" || continue
        if python_is_complete "$candidate"; then
            PYTHON=$(command -v "$candidate")
            return
        fi
        usable=${usable:-$candidate}
    done
    if [ -n "$usable" ]; then
        local version
        version=$("$usable" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        install_packages "python$version-venv" "python$version-dev"
    else
        install_packages python3 python3-venv python3-dev
    fi
    for candidate in $usable /usr/bin/python3; do
        if python_is_new_enough "$candidate" && python_is_complete "$candidate"; then
            PYTHON=$(command -v "$candidate")
            return
        fi
    done
    fail "versionfs needs Python 3.11 or newer with venv and headers; please install one"
}

# make_venv EXTRA: makes ROOT/.venv with the project, editable, and sets VENV. EXTRA is "dev" or
# empty. The environment is used again while what it was made from, the folder and Python stay the same.
make_venv() {
    local extra=$1 stamp wanted
    VENV=$ROOT/.venv
    stamp=$VENV/versionfs-installed${extra:+-$extra}
    wanted=$( (
        echo "$ROOT"
        cat "$ROOT/pyproject.toml" "$ROOT/scripts/lib/build_hook.py" "$ROOT"/versionfs/*/*.c
    ) | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$VENV/bin/python" -c 'import pyfuse3' 2>/dev/null; then
        return
    fi
    require_fuse
    find_python
    note "making .venv with $("$PYTHON" --version) (a minute or two: pyfuse3 is compiled)"
    "$PYTHON" -m venv --clear "$VENV"
    retry_once "$VENV/bin/python" -m pip install -qq --disable-pip-version-check \
        --editable "$ROOT${extra:+[$extra]}" >&2
    echo "$wanted" >"$VENV/versionfs-installed"
    echo "$wanted" >"$stamp"
}
