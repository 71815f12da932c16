# shellcheck shell=bash
# Shared by the scripts: paths, packages, messages. Sourced, not run.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# A profile of Cargo.toml, whose folder has its name.
OGEE_PROFILE=${OGEE_PROFILE:-release}
# What later builds could start from makes the first one slower and its folder three times as large: without, unless
# somebody has worked here, whose builds would begin anew.
[ -d "${CARGO_TARGET_DIR:-$REPO/target}/debug/incremental" ] || export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
OGEE=${CARGO_TARGET_DIR:-$REPO/target}/$OGEE_PROFILE/ogee

say() { printf '\n== %s\n' "$*"; }
die() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# need_packages PACKAGE...   installs what is missing, as root, from the distribution
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    [ "$(id -u)" = 0 ] || die "these packages are missing: ${missing[*]}; run as root, or: apt-get install ${missing[*]}"
    # An interrupted install of an earlier run must not be in the way.
    apt_alone dpkg --configure -a >/dev/null 2>&1 || true
    apt_alone apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt_alone apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# apt_alone COMMAND...   one at a time: apt does not wait for another one
apt_alone() {
    (
        flock 8
        "$@"
    ) 8>"${TMPDIR:-/tmp}/ogee-apt.lock"
}

need_rust() {
    command -v cargo >/dev/null || die "cargo is not installed: install Rust with rustup (https://rustup.rs)"
}

# build_release [WHAT...]   what cargo is to build, by default `ogee`; OGEE_SKIP_BUILD=1 takes what is there
build_release() {
    if [ "${OGEE_SKIP_BUILD:-0}" = 1 ]; then
        [ -x "$OGEE" ] || die "there is no $OGEE to take as it is"
        return 0
    fi
    [ $# -gt 0 ] || set -- -p ogee-cli
    need_rust
    need_packages gcc make libc6-dev
    (cd "$REPO" && cargo build --profile "$OGEE_PROFILE" --quiet "$@")
}

# The same with all that tests start beside it. One command for every group: with other packages, what they share would
# have other features, and be built once more.
build_for_tests() {
    build_release -p ogee-cli -p ogee-capi -p ogee-client -p ogee-cost --lib --bins \
        --example blocks --example stale_reads --example power_cut
}

# wait_for SECONDS COMMAND...   until the command succeeds
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# A process and its descendants give way to nobody any more.
hurry() {
    local pid task
    for pid in "$1" $(descendants "$1"); do
        chrt --all-tasks --other --pid 0 "$pid" >/dev/null 2>&1 || true
        for task in /proc/"$pid"/task/*; do renice -n 0 -p "${task##*/}" >/dev/null 2>&1 || true; done
    done
}

# The children of a process and theirs.
descendants() {
    local child
    for child in $(ps -o pid= --ppid "$1"); do
        echo "$child"
        descendants "$child"
    done
}
