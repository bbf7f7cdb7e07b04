# Shared by the scripts in this folder: finds a Python, makes the virtual environment, tells what it does.
# Sourced, not run. The caller has set $top to the checkout.

export DEBIAN_FRONTEND=noninteractive  # apt-get may have to install something, and nobody is asked

say() { printf '%s\n' "== $*" >&2; }
die() { printf '%s\n' "$0: $*" >&2; exit 1; }

# A Python of at least 3.11 that can run; $KSHELL_PYTHON names another.
find_python() {
    for candidate in ${KSHELL_PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    die "no Python 3.11 or newer on PATH; on Debian or Ubuntu: apt-get install python3 python3-venv"
}

# Where the virtual environment lives: in the checkout, or in the cache when the checkout cannot be written.
venv_folder() {
    if [ -n "${KSHELL_VENV:-}" ]; then
        printf '%s\n' "$KSHELL_VENV"
    elif [ -w "$top" ]; then
        printf '%s\n' "$top/.venv"
    else
        printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/kshell/venv"
    fi
}

make_venv() {
    "$python" -m venv "$1" >/dev/null 2>&1 && return 0
    rm -rf "$1"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "this Python has no venv module: installing python3-venv with apt-get"
        apt-get update -qq >/dev/null 2>&1 || true
        apt-get install -y -qq --no-install-recommends python3-venv >/dev/null || die "apt-get could not install python3-venv"
        "$python" -m venv "$1" && return 0
    fi
    die "$python cannot make virtual environments; on Debian or Ubuntu: sudo apt-get install python3-venv"
}

# The tests of programs and DWARF compile small C programs; without a compiler they are skipped.
have_compiler() {
    command -v gcc >/dev/null 2>&1 || command -v cc >/dev/null 2>&1 && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "no C compiler: installing gcc with apt-get"
        apt-get update -qq >/dev/null 2>&1 || true
        apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null 2>&1 && return 0
    fi
    say "no C compiler (apt-get install gcc libc6-dev): the tests that need one are skipped"
}

# setup_venv EXTRAS: a virtual environment with kshell in it, editable; again only when its ingredients changed.
setup_venv() {
    extras=$1
    python=$(find_python)
    venv=$(venv_folder)
    want=$(cat "$top/setup.cfg" "$top/pyproject.toml" | cksum)
    want="$want $("$python" -c 'import sys; print(sys.version)' | cksum) $top $extras compat"
    stamp=$venv/kshell-setup-${extras:-run}
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
        return 0
    fi
    if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        say "making a virtual environment in $venv"
        rm -rf "$venv"
        make_venv "$venv"
    fi
    say "installing kshell${extras:+ with what its $extras need} into $venv (from PyPI; once)"
    # "compat" puts the checkout on the path; the default's import hook costs every start of Python 30 ms
    editable="--config-settings editable_mode=compat -e" source=$top
    if [ ! -w "$top" ]; then
        # pip writes beside what it installs, so a checkout that cannot be written is installed from a copy
        rm -rf "$venv/source"
        mkdir -p "$venv/source"
        (cd "$top" && tar cf - --exclude=.git --exclude=.venv .) | tar xf - -C "$venv/source"
        editable="" source=$venv/source
    fi
    PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --disable-pip-version-check -q $editable "$source${extras:+[$extras]}" ||
        die "pip could not install what kshell needs; is PyPI reachable from here?"
    printf '%s\n' "$want" >"$stamp"
}
