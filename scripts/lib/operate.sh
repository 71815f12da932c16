# shellcheck shell=bash
# What operators ask before they do it, and what they hold up. Sourced by test.d/core.sh.

# Under a verified load: what a removal and a drain would take is told and nothing is done; while jobs are paused nothing is made
# anew, also when the metadata server was killed; then it is. A pool comes and goes with its copysets.
test_operate() {
    local load answer code
    heal_cluster --nodes 4 --copysets 6 --store-size 2GiB --log-size 128MiB
    make_volumes 64MiB
    writer_begins 8
    answer=$("$OGEE" server ok-to-remove cs1 -o json) || give_up "three others have room: $answer"
    jq -e '.ok and (.replicas | length > 0) and all(.replicas[]; .obstacle == "" and .to != "cs1" and .to != "")' <<<"$answer" >/dev/null ||
        give_up "not where each would go: $answer"
    answer=$("$OGEE" server drain cs1 --dry-run -o json) || give_up "dry run: $answer"
    jq -e '([.jobs[] | select(.kind == "drain")] | length > 0) and all(.jobs[]; .state == "planned") and ([.jobs[].bytes] | add) > 0' <<<"$answer" >/dev/null ||
        give_up "not what it would do: $answer"
    ! is_marked cs1 draining >/dev/null || give_up "a dry run drains"

    "$OGEE" job pause >/dev/null
    node_kill cs1
    # Others are given up after four seconds here.
    sleep 9
    node_kill mds1
    node_start mds1
    wait_for 60 has_code OGEE-1060 >/dev/null || give_up "forgotten that jobs are paused: $("$OGEE" status)"
    sleep 9
    [ "$("$OGEE" job ls -o json | jq '[.jobs[] | select(.kind == "recover")] | length')" = 0 ] || give_up "made anew: $("$OGEE" job ls)"
    "$OGEE" job ls -o json | jq -e '.paused_since_unix_ms > 0' >/dev/null || give_up "job ls does not say so"
    code=0 && "$OGEE" server ok-to-remove cs2 >"$TEST_DIR/degraded" || code=$?
    [ "$code" = 1 ] || give_up "exit code $code: $(cat "$TEST_DIR/degraded")"
    grep -q "lacks a replica" "$TEST_DIR/degraded" || give_up "not said why: $(cat "$TEST_DIR/degraded")"
    code=0 && "$OGEE" mds ok-to-stop 1 >"$TEST_DIR/mds" || code=$?
    [ "$code" = 1 ] || give_up "the only one may stop: $(cat "$TEST_DIR/mds")"
    "$OGEE" server show cs1 -o json | jq -e '.server.state == "offline" and ([.health[].code] | index("OGEE-1001") != null)' >/dev/null ||
        give_up "not shown: $("$OGEE" server show cs1)"
    "$OGEE" job resume >/dev/null
    wait_for 120 empty_and_whole cs1 || give_up "not whole: $("$OGEE" job ls) $("$OGEE" copyset ls)"
    "$OGEE" server rm cs1

    "$OGEE" pool create extra --copysets 2 >/dev/null
    wait_for 60 "$OGEE" volume create spare --size 64MiB --pool extra >/dev/null || give_up "no volume in it: $("$OGEE" pool ls)"
    ! "$OGEE" pool rm extra 2>"$TEST_DIR/pool" || give_up "removed what is not empty"
    grep -q OGEE-2112 "$TEST_DIR/pool" || give_up "refused otherwise: $(cat "$TEST_DIR/pool")"
    "$OGEE" pool show extra >/dev/null
    "$OGEE" volume rm spare --yes
    wait_for 60 "$OGEE" pool rm extra 2>"$TEST_DIR/pool" || give_up "not removed: $(cat "$TEST_DIR/pool")"
    [ "$("$OGEE" copyset ls -o json | jq '.copysets | length')" = 6 ] || give_up "its copysets are left: $("$OGEE" copyset ls)"
    ! "$OGEE" pool rm default 2>"$TEST_DIR/pool" || give_up "removed the one with volumes"
    grep -q OGEE-2112 "$TEST_DIR/pool" || give_up "refused otherwise: $(cat "$TEST_DIR/pool")"
    "$OGEE" pool ls -o json | jq -e 'all(.pools[]; .usable_bytes > .free_bytes and .free_bytes > 0 and .used_bytes > 0)' >/dev/null ||
        give_up "capacity: $("$OGEE" pool ls -o json)"
    wait_healthy 60
    writer_ends "$load"
    echo "   under load: $(jq -c '{acked, wait_max_ms}' "$TEST_DIR/load.json")"
    copysets_agree
}
