#!/usr/bin/env bash
# Metadata servers that are down for long: five minutes / an hour. It waits nearly all the time, so `scripts/test` runs it
# beside other groups; alone, it also compares speeds.   MDS_AWAY_SECONDS=60 ONLY=mds_away scripts/test outage
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$REPO/scripts/lib/cluster.sh"
cd "$REPO"

# Whether nothing runs beside this group.
is_alone() {
    [ "${ASIDE:-0}" = 0 ]
}

# All metadata servers are away for longer than anything that they gave out could last: an attachment, a map, a leader's
# right. Meanwhile each chunkserver dies once, whatever it leads, and comes back, with nobody to ask.
test_mds_away() {
    local seconds=${MDS_AWAY_SECONDS:-$(ci_or_full 300 3600)} load victim gap turn
    cluster_up --mds-nodes 3
    create_volume disk --size 512MiB
    # Attached before, too: what it gets without metadata servers is compared with what it had with them.
    if is_alone; then
        create_volume fast --size 512MiB
        export_start fast
        full_speed before
    fi
    "$OGEE" bench disk --rw randrw --size 64MiB --bs 4k --arrival-rate 100 --iodepth 64 --verify --runtime "$((seconds + 60))" -o json \
        >"$TEST_DIR/bench.json" 2>"$TEST_DIR/bench.log" &
    load=$!
    defer end_process "$load"
    wait_for 30 grep -q attached "$TEST_DIR/bench.log" || give_up "no attachment: $(tail -n 3 "$TEST_DIR/bench.log")"
    node_kill mds1 mds2 mds3
    echo "   all metadata servers are down, for $seconds s"
    for victim in $(chunkservers); do
        sleep $((seconds / 4))
        kill -0 "$load" || give_up "the load has ended: $(tail -n 3 "$TEST_DIR/bench.log")"
        echo "   after $((seconds / 4)) s more $victim is killed, and is back after 10"
        node_kill "$victim"
        sleep 10
        node_start "$victim"
    done
    sleep $((seconds / 4))
    kill -0 "$load" || give_up "the load has ended: $(tail -n 3 "$TEST_DIR/bench.log")"
    ! is_alone || full_speed without
    # It detaches in the end, which they must hear.
    node_start mds1
    node_start mds2
    node_start mds3
    wait "$load" || give_up "the load: $(tail -n 4 "$TEST_DIR/bench.log")"
    jq -e '.jobs[0] | .error == 0 and .read.total_ios > 0 and .write.total_ios > 0' "$TEST_DIR/bench.json" >/dev/null ||
        give_up "the load saw $(jq -c '.jobs[0] | [.error, .read.total_ios, .write.total_ios]' "$TEST_DIR/bench.json")"
    gap=$(jq '[.jobs[0] | .. | .longest_silence_ns? // empty] | max / 1000000 | floor' "$TEST_DIR/bench.json")
    echo "   $(jq -c '.jobs[0] | {read: .read.total_ios, written: .write.total_ios}' "$TEST_DIR/bench.json"), no error, nothing answered for at most $gap ms"
    [ "$gap" -lt 10000 ] || give_up "nothing was answered for $gap ms"
    wait_healthy 60
    copysets_agree
    if ! is_alone; then
        echo "   how fast it goes was not compared: other groups run beside it"
        return 0
    fi
    full_speed after
    for turn in before without after; do echo "   IOPS of five windows of 4 s, as fast as it goes, $turn: $(xargs <"$TEST_DIR/$turn")"; done
    # What else the machine does changes in that time: the slower of both tells what it can.
    for turn in before after; do
        [ $(($(middle "$TEST_DIR/without") * 4)) -lt $(($(middle "$TEST_DIR/$turn") * 3)) ] || return 0
    done
    give_up "slower without metadata servers"
}

# full_speed NAME   requests a second of five windows on the export, into a file of that name
full_speed() {
    local turn
    for turn in 1 2 3 4 5; do
        "$OGEE" bench "$URI" --rw randrw --bs 4k --iodepth 16 --ramp-time 1 --runtime 4 -o json >"$TEST_DIR/fast-$1-$turn.json" 2>"$TEST_DIR/fast.log" ||
            give_up "bench: $(tail -n 3 "$TEST_DIR/fast.log")"
        jq '.jobs[0] | .read.iops + .write.iops | round' "$TEST_DIR/fast-$1-$turn.json"
    done | sort -n >"$TEST_DIR/$1"
}

need_packages libnbd-bin jq
build_for_tests
begin_group outage

run_test mds_away "$(ci_or_full 500 4100)" test_mds_away
