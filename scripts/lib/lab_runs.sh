# shellcheck shell=bash
# Runs of scripts/lab in tests: in the foreground, or in the background while the host does something to them.
# Sourced after cluster.sh, not run.
LAB=$REPO/scripts/lab

# lab_ends STATUS OPTION...   a run of the lab ends so; its output in $TEST_DIR/lab.log
lab_ends() {
    local want=$1 got=0
    shift
    "$LAB" run "$@" >"$TEST_DIR/lab.log" 2>&1 || got=$?
    [ "$got" = "$want" ] || give_up "the lab ended with $got instead of $want: $(tail -n 5 "$TEST_DIR/lab.log")"
}

# lab_start OPTION...   a run in the background: $LAB_PID, and $GUEST_PID of its QEMU
lab_start() {
    rm -f "$TEST_DIR/pids"
    # One that is killed leaves its folder behind: where it is removed.
    TMPDIR=$TEST_DIR "$LAB" run --pids "$TEST_DIR/pids" "$@" >"$TEST_DIR/lab.log" 2>&1 &
    LAB_PID=$!
    defer lab_kill "$LAB_PID"
    wait_for 180 started_or_ended || give_up "no guest in 180 s: $(tail -n 5 "$TEST_DIR/lab.log")"
    [ -s "$TEST_DIR/pids" ] || give_up "no guest: $(tail -n 5 "$TEST_DIR/lab.log")"
    # shellcheck disable=SC2034 # for the tests
    GUEST_PID=$(cat "$TEST_DIR/pids")
}

started_or_ended() {
    [ -s "$TEST_DIR/pids" ] || process_gone "$LAB_PID"
}

lab_kill() {
    kill "$1" 2>/dev/null || return 0
    wait_for 15 process_gone "$1" || kill -9 "$1" 2>/dev/null || true
}

# lab_end STATUS   the run in the background ends so
lab_end() {
    local got=0
    wait_for "${2:-30}" process_gone "$LAB_PID" || give_up "the lab does not end: $(tail -n 5 "$TEST_DIR/lab.log")"
    wait "$LAB_PID" || got=$?
    [ "$got" = "$1" ] || give_up "the lab ended with $got instead of $1: $(tail -n 8 "$TEST_DIR/lab.log")"
}
