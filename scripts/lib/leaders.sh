# shellcheck shell=bash
# Leaders that are moved by what is asked of them, and what that is worth. Sourced after heal.sh.

hot_copysets() {
    "$OGEE" volume locate hot -o json | jq '[.chunks[].copyset] | unique | .[]'
}

# hot_leaders   how many of them each chunkserver leads that leads any, the most first
hot_leaders() {
    "$OGEE" volume locate hot -o json | jq -c '[.chunks[] | {copyset, leader}] | unique | group_by(.leader) | map(length) | sort | reverse'
}

hot_leaders_are() {
    [ "$(hot_leaders)" = "$1" ]
}

would_move() {
    "$OGEE" copyset balance-leaders --now --dry-run -o json | jq -e --argjson least "$1" '[.jobs[] | select(.state == "planned")] | length >= $least'
}

# One chunkserver leads all copysets of a busy volume, the others as many idle ones: even by number.
test_hot_leaders() {
    local id hot even load others=(cs2 cs3) at=0
    heal_cluster --copysets 9 --store-size 2GiB --log-size 128MiB
    create_volume hot --size 48MiB
    hot=$(hot_copysets | wc -l)
    [ "$hot" -ge 3 ] || give_up "the volume has $hot copysets"
    for id in $("$OGEE" copyset ls -o json | jq '.copysets[].id'); do
        if hot_copysets | grep -qx "$id"; then
            "$OGEE" copyset transfer-leader "$id" --to cs1 >>"$TEST_DIR/transfer.log" 2>&1 || give_up "transfer-leader"
        else
            "$OGEE" copyset transfer-leader "$id" --to "${others[at++ % 2]}" >>"$TEST_DIR/transfer.log" 2>&1 || give_up "transfer-leader"
        fi
    done
    wait_for 20 hot_leaders_are "[$hot]" || give_up "cs1 does not lead the volume: $("$OGEE" copyset ls)"
    "$OGEE" bench hot --rw randrw --bs 4KiB --iodepth 8 --runtime 120 -o json >"$TEST_DIR/bench.json" 2>"$TEST_DIR/bench.log" &
    load=$!
    defer end_process "$load"
    wait_for 60 would_move 2 || give_up "nothing would move: $("$OGEE" server ls)"
    "$OGEE" copyset balance-leaders --now --dry-run | sed 's/^/   /'
    hot_leaders_are "[$hot]" || give_up "a dry run moves leaders: $(hot_leaders)"
    "$OGEE" copyset balance-leaders --now >"$TEST_DIR/balance.log" || give_up "balance-leaders: $(tail -n 3 "$TEST_DIR/balance.log")"
    # As even as so many can be.
    even=$(jq -nc --argjson hot "$hot" '[range(3) | ($hot + 2 - .) / 3 | floor]')
    wait_for 20 hot_leaders_are "$even" || give_up "leaders of the volume: $(hot_leaders), not $even: $(cat "$TEST_DIR/balance.log")"
    sleep 10
    ! would_move 1 >"$TEST_DIR/again.json" || give_up "it does not rest: $(jq -c '[.jobs[].reason]' "$TEST_DIR/again.json")$("$OGEE" copyset balance-leaders --now --dry-run)"
    process_alive "$load" || give_up "the load has ended: $(tail -n 3 "$TEST_DIR/bench.log")"
    end_process "$load"
    echo "   $hot copysets of a busy volume, led by one chunkserver, are led $even"
}

CPU=/sys/fs/cgroup/cpu
# Of one processor, in hundredths: two processors keep three chunkservers and the load that asks them busy.
SHARE=40

# processor_share NODE   of one processor it gets SHARE hundredths, in periods of 10 ms
processor_share() {
    local group=$CPU/ogee-$1-$$ pid
    pid=$(node_pid "$1") || give_up "$1 does not run"
    [ -e "$CPU/cpu.cfs_quota_us" ] || give_skip "no cgroup of version 1 for processors at $CPU"
    mkdir "$group"
    defer cgroup_end "$group"
    echo 10000 >"$group/cpu.cfs_period_us"
    echo $((SHARE * 100)) >"$group/cpu.cfs_quota_us"
    echo "$pid" >"$group/cgroup.procs"
}

leaders_even() {
    # shellcheck disable=SC2046 # one word each
    is_even $(led_by cs1 cs2 cs3)
}

# Chunkservers with a part of a processor each, as those of different machines have: all copysets led by one of them, and after
# `balance-leaders --now` by all. In turn, several times.
test_leader_speed() {
    local round rounds seconds name rw began took slowest=0
    rounds=$(ci_or_full 3 6) seconds=$(ci_or_full 3 6)
    heal_cluster --copysets 9 --store-size 2GiB --log-size 256MiB
    create_volume disk --size 256MiB
    bench_json disk fill --rw write --bs 1MiB --iodepth 8 --io-size 256MiB
    for name in cs1 cs2 cs3; do processor_share "$name"; done
    mkdir "$TEST_DIR/turns-randwrite" "$TEST_DIR/turns-randread"
    for ((round = 1; round <= rounds; round++)); do
        leaders_to cs1
        for rw in randwrite randread; do
            bench_json disk "turns-$rw/a-$round" --rw "$rw" --bs 4KiB --iodepth 32 --ramp-time 1 --runtime "$seconds"
        done
        [ "$(led_by cs1)" = 9 ] || give_up "cs1 leads $(led_by cs1) of 9 after the load"
        began=$EPOCHREALTIME
        "$OGEE" copyset balance-leaders --now >"$TEST_DIR/balance.log" || give_up "balance-leaders: $(tail -n 3 "$TEST_DIR/balance.log")"
        wait_for 10 leaders_even || give_up "not even after 10 s: $("$OGEE" server ls)"
        took=$(((${EPOCHREALTIME/./} - ${began/./}) / 1000))
        [ "$took" -le "$slowest" ] || slowest=$took
        for rw in randwrite randread; do
            bench_json disk "turns-$rw/b-$round" --rw "$rw" --bs 4KiB --iodepth 32 --ramp-time 1 --runtime "$seconds"
        done
    done
    echo "   from all led by one to even in at most $slowest ms; $SHARE % of a processor for each; IOPS at depth 32, even for one, median (least to most) of $rounds rounds:"
    for rw in randwrite randread; do
        ratios "turns-$rw" '.read.iops + .write.iops' >"$TEST_DIR/$rw"
        echo "   $rw $(spread "$TEST_DIR/$rw")"
    done
    [ "$slowest" -lt 10000 ] || give_up "it took $slowest ms"
    # The machine's noise is in a round, not in what is shown.
    for rw in randwrite randread; do
        [ "$(middle "$TEST_DIR/$rw")" -ge 950 ] || give_up "$rw is slower when leaders are spread"
    done
}

# What a change of leader costs who writes meanwhile: windows of one writer at depth 1 on one copyset, with a transfer in their
# middle and without, in turn; of each window the longest wait.
test_leader_pause() {
    local round rounds load to
    rounds=$(ci_or_full 10 40)
    cluster_up --copysets 1 --store-size 2GiB --log-size 256MiB
    create_volume disk --size 64MiB
    bench_json disk fill --rw write --bs 1MiB --iodepth 8 --io-size 64MiB
    for ((round = 1; round <= rounds; round++)); do
        window still
        to=$(chunkservers | grep -vxF "$(volume_leader disk)" | shuf -n 1)
        window moved &
        load=$!
        sleep 1
        "$OGEE" copyset transfer-leader 1 --to "$to" >>"$TEST_DIR/transfer.log" 2>&1 || give_up "transfer-leader: $(tail -n 3 "$TEST_DIR/transfer.log")"
        wait "$load" || give_up "the load ended"
        wait_for 10 leads_what_it_can "$to" || give_up "$(volume_leader disk) leads and not $to"
    done
    for round in still moved; do
        sort -n "$TEST_DIR/$round.unsorted" >"$TEST_DIR/$round"
        echo "   $round: the longest wait of a write, ms, median (least to most) of $rounds windows of 2 s: $(spread "$TEST_DIR/$round")"
    done
    [ "$(middle "$TEST_DIR/moved")" -lt 50000 ] || give_up "a transfer stops writes for more than 50 ms"
}

# window KIND   of 2 s; its longest wait, in microseconds
window() {
    bench_json disk "window-$1" --rw randwrite --bs 4KiB --iodepth 1 --runtime 2
    jq '.jobs[0].write.lat_ns.max / 1000 | round' "$TEST_DIR/window-$1.json" >>"$TEST_DIR/$1.unsorted"
}
