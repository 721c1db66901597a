# shellcheck shell=bash
# Sourced by the scripts beside it: finds a Python, makes .venv, installs from requirements.lock.
#
# Written are only .venv and pip's cache. Two stamps in .venv hold a hash of what was installed (of the first part of the
# lock, of all of it), so that the next start need not ask pip. `.venv/installing` exists while pip is at work: who finds
# it under the lock knows that an installation was interrupted, and begins again from nothing, since pip trusts half an
# installed package. The lock is a flock on requirements.lock, which needs no file of its own.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
LOCK=$ROOT/requirements.lock
SOURCE_MARK='# --- from source:'
DEV_MARK='# --- dev:'

# What a shell or a packager may have set for another Python.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUTF8=1

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$@"
    exit 1
}

# --- Debian packages, as root only -----------------------------------------------------------------------------------

POLICY=/usr/sbin/policy-rc.d
POLICY_SAVED=/usr/sbin/policy-rc.d.pillarbox-saved
POLICY_MARK='# pillarbox: no service starts while packages are installed'

can_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

keep_services_stopped() {
    if [ -e "$POLICY" ] && ! grep -qF "$POLICY_MARK" "$POLICY"; then
        mv "$POLICY" "$POLICY_SAVED"
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
    chmod 755 "$POLICY"
    trap restore_policy EXIT
    trap 'exit 130' INT TERM HUP
}

restore_policy() {
    if [ -e "$POLICY" ] && grep -qF "$POLICY_MARK" "$POLICY"; then
        rm -f "$POLICY"
    fi
    if [ -e "$POLICY_SAVED" ]; then
        mv "$POLICY_SAVED" "$POLICY"
    fi
}

# apt_install PACKAGE…: in a shell of its own, so that its traps end with it.
apt_install() (
    export DEBIAN_FRONTEND=noninteractive
    options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=300)
    keep_services_stopped
    apt-get "${options[@]}" install "$@" && exit
    apt-get -q update && apt-get "${options[@]}" install "$@"
) >&2 </dev/null

# --- Python ----------------------------------------------------------------------------------------------------------

is_right_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

has_venv() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

# Sets PYTHON to the first right Python that can make a virtual environment, else to the first right one, else to "".
find_python() {
    local candidate first=
    for candidate in ${PILLARBOX_PYTHON:+"$PILLARBOX_PYTHON"} python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        is_right_python "$candidate" || continue
        if has_venv "$candidate"; then
            PYTHON=$candidate
            return
        fi
        first=${first:-$candidate}
    done
    PYTHON=$first
}

need_python() {
    local packages=(python3 python3-venv)
    find_python
    if [ -n "$PYTHON" ] && has_venv "$PYTHON"; then
        return
    fi
    if [ -n "$PYTHON" ]; then
        packages=("python$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
    fi
    if ! can_apt; then
        fail "Python 3.11 to 3.13 with its venv module is needed. Type: sudo apt-get install ${packages[*]}"
    fi
    say "Installing ${packages[*]} …"
    apt_install "${packages[@]}" || fail "apt-get could not install ${packages[*]}"
    hash -r
    find_python
    if [ -z "$PYTHON" ] || ! has_venv "$PYTHON"; then
        fail "No Python 3.11 to 3.13 with a venv module, even after installing ${packages[*]}"
    fi
}

# --- The virtual environment -----------------------------------------------------------------------------------------

# A venv knows its own path: one that was copied or moved here is of no use.
venv_works() {
    [ -x "$VENV/bin/python" ] && [ ! -e "$VENV/installing" ] && is_right_python "$VENV/bin/python" &&
        [ "$("$VENV/bin/python" -c 'import sys, pip; print(sys.prefix)' 2>/dev/null)" = "$VENV" ]
}

wanted() {
    { printf '%s\n' "$VENV" && cat "$LOCK" "$ROOT/pyproject.toml" "$ROOT/scripts/lib.sh"; } | sha256sum | cut -d ' ' -f 1
}

is_installed() {
    [ -x "$VENV/bin/pillarbox" ] && [ -x "$VENV/bin/python" ] && [ ! -e "$VENV/installing" ] &&
        [ "$(cat "$VENV/installed-$1" 2>/dev/null)" = "$(wanted)" ]
}

# prepare run|all: what running needs, or also what tests and checks need.
prepare() {
    is_installed "$1" && return
    exec 9<"$LOCK"
    if command -v flock >/dev/null && ! flock -n 9; then
        say "Waiting for another installation into .venv …"
        flock 9
    fi
    is_installed "$1" || install_all "$1"
    exec 9<&-
}

install_all() {
    local start=$SECONDS
    if ! venv_works; then
        need_python
        say "Making .venv with $("$PYTHON" --version) …"
        rm -rf "$VENV"
        mkdir "$VENV"
        touch "$VENV/installing"
        "$PYTHON" -m venv "$VENV" || fail "$PYTHON -m venv failed"
    fi
    touch "$VENV/installing"
    keep_bytecode_in_venv
    say "Installing the packages of requirements.lock into .venv (once; a minute or two) …"
    part run >"$VENV/wheels.txt"
    part source >"$VENV/source.txt"
    pip_install --only-binary :all: -r "$VENV/wheels.txt"
    # Pure Python without a published wheel: built by the setuptools of the line above, no compiler involved.
    pip_install --no-deps --no-build-isolation --use-pep517 --no-binary :all: -r "$VENV/source.txt"
    if [ "$1" = all ]; then
        say "Installing what tests and checks need …"
        part dev >"$VENV/dev.txt"
        pip_install --only-binary :all: -r "$VENV/wheels.txt" -r "$VENV/dev.txt"
    fi
    "$VENV/bin/python" -m pip install -q --no-deps --no-build-isolation -e "$ROOT" >&2 ||
        fail "Pillarbox itself could not be installed into .venv"
    rm -f "$VENV/installing"
    wanted >"$VENV/installed-run"
    if [ "$1" = all ]; then
        wanted >"$VENV/installed-all"
    fi
    say "Installed in $((SECONDS - start)) s."
}

# part run|source|dev: one part of the lock.
part() {
    awk -v want="$1" -v source="$SOURCE_MARK" -v dev="$DEV_MARK" '
        BEGIN { at = "run" }
        index($0, source) == 1 { at = "source" }
        index($0, dev) == 1 { at = "dev" }
        at == want' "$LOCK"
}

# All bytecode goes to .venv/pycache, whoever starts this Python: the source tree stays as it is.
keep_bytecode_in_venv() {
    local packages
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf 'import sys; sys.pycache_prefix = sys.prefix + "/pycache"\n' >"$packages/pillarbox_pycache.pth"
}

pip_install() {
    "$VENV/bin/python" -m pip install --require-hashes --progress-bar off "$@" 2>&1 9<&- | tee "$VENV/pip.log" |
        awk '/^Collecting / { if (++n % 20 == 0) { print "  … " n " packages" ; fflush() } }' >&2 ||
        { tail -n 20 "$VENV/pip.log" >&2 && fail "pip failed; all it said is in .venv/pip.log"; }
}
