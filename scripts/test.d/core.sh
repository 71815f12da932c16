#!/usr/bin/env bash
# The durable core under faults: stopped and deposed leaders, former users, full devices, overload.
# docs/testing.md says what each test proves.   ONLY="full_device" KEEP=1 SEED=7 scripts/test core
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$REPO/scripts/lib/cluster.sh"
# shellcheck source=scripts/lib/heal.sh
. "$REPO/scripts/lib/heal.sh"
# shellcheck source=scripts/lib/leaders.sh
. "$REPO/scripts/lib/leaders.sh"
# shellcheck source=scripts/lib/slow_disk.sh
. "$REPO/scripts/lib/slow_disk.sh"
# shellcheck source=scripts/lib/sick.sh
. "$REPO/scripts/lib/sick.sh"
# shellcheck source=scripts/lib/operate.sh
. "$REPO/scripts/lib/operate.sh"
cd "$REPO"

# counter_sum NAME   a counter, summed over its labels and the chunkservers
counter_sum() {
    local node
    for node in $(chunkservers); do metrics_of "$node"; done |
        awk -v name="ogee_chunkserver_$1_total" '$1 ~ "^" name "({|$)" { sum += $2; seen = 1 } END { if (!seen) exit 1; printf "%.0f\n", sum }' ||
        give_up "no counter $1"
}

# ---- reads -------------------------------------------------------------------------------------

# A leader that was stopped for longer than its lease, a follower that forgot its promise, a node
# whose clocks differ by an hour: no read that was served is older than an acknowledged write.
test_stale_reads() {
    local rounds round victim follower load changes=0 pid for_ms
    rounds=$(ci_or_full 10 100)
    cluster_up --copysets 4
    create_volume disk --size 1GiB
    RANDOM=$SEED
    "$STALE_READS" "$OGEE_MDS" disk "$TEST_DIR/enough" 3600 >"$TEST_DIR/reads.json" 2>"$TEST_DIR/reads.log" &
    load=$!
    defer end_load "$load"
    sleep 2
    # Some stops are too short for a successor: more rounds then, so that what is to be shown happens.
    for ((round = 1; round <= rounds || (changes <= rounds / 3 && round <= 2 * rounds); round++)); do
        process_alive "$load" || give_up "the readers ended in round $round: $(tail -n 3 "$TEST_DIR/reads.log")"
        victim=$(volume_leader disk)
        for_ms=$((1100 + RANDOM % 1500))
        case $((round % 3)) in
        0)
            # Within the lease that its last answer gave the leader, which goes away in that time.
            follower=$(chunkservers | grep -vxF "$victim" | shuf -n 1 --random-source=<(yes "$SEED$round"))
            node_kill "$follower"
            node_start "$follower" &
            pid=$!
            stop_for "$victim" "$for_ms"
            wait "$pid" || give_up "dev start $follower"
            ;;
        1) stop_for "$victim" "$for_ms" ;;
        2)
            node_kill "$victim"
            # An hour ahead of the others, by every clock that a process can see.
            start_ahead "$victim"
            sleep_ms "$for_ms"
            stop_for "$(volume_leader disk)" "$for_ms"
            ;;
        esac
        wait_healthy
        [ "$(volume_leader disk)" = "$victim" ] || changes=$((changes + 1))
    done
    : >"$TEST_DIR/enough"
    wait_for 60 process_gone "$load" || give_up "the readers do not end"
    wait "$load" || give_up "stale reads: $(head -n 3 "$TEST_DIR/reads.log") $(cat "$TEST_DIR/reads.json")"
    echo "   $((round - 1)) rounds, $changes leaders changed: $(cat "$TEST_DIR/reads.json")"
    jq -e '.stale == 0 and .served > 1000 and .writes > 1000 and .servers == 3' "$TEST_DIR/reads.json" >/dev/null ||
        give_up "too little was read: $(cat "$TEST_DIR/reads.json")"
    [ "$changes" -gt $((rounds / 3)) ] || give_up "leaders changed in $changes of $((round - 1)) rounds only"
}

end_load() {
    process_alive "$1" && kill -9 "$1"
}

# stop_for NAME MILLISECONDS   a process that neither runs nor dies
stop_for() {
    local pid
    pid=$(node_pid "$1") || give_up "$1 does not run"
    kill -STOP "$pid"
    defer kill -CONT "$pid"
    sleep_ms "$2"
    kill -CONT "$pid"
}

# In a time namespace an hour ahead, where the kernel lets us make one.
start_ahead() {
    if unshare -T --monotonic 3600 --boottime 3600 true 2>/dev/null; then
        unshare -T --monotonic 3600 --boottime 3600 "$OGEE" dev start "$1" --dir "$DIR" >>"$TEST_DIR/start.log" 2>&1 ||
            give_up "dev start $1: $(tail -n 3 "$TEST_DIR/start.log")"
    else
        echo "   no time namespaces here: $1 starts without"
        node_start "$1"
    fi
}

# ---- fencing -----------------------------------------------------------------------------------

# A former user's writes, held in its process and its sockets while another one attaches: all refused.
test_fencing() {
    local rounds round old new old_load
    rounds=$(ci_or_full 2 30)
    cluster_up
    create_volume disk --size 256MiB
    for ((round = 1; round <= rounds; round++)); do
        export_start disk
        old=$EXPORT_PID
        (exec_nbd_load write --state "$TEST_DIR/old.$round" --seed "$round" --depth 32 --seconds 8) >"$TEST_DIR/old.json" 2>"$TEST_DIR/old.log" &
        old_load=$!
        defer end_process "$old_load"
        sleep 1
        kill -STOP "$old"
        defer kill -CONT "$old"
        # Every other time the operator takes the volume away first.
        [ $((round % 2)) = 1 ] || "$OGEE" volume detach disk || give_up "volume detach"
        rm -f "$TEST_DIR/disk.sock"
        export_start disk
        new=$EXPORT_PID
        (exec_nbd_load write --state "$TEST_DIR/new.$round" --seed "$((SEED + round))" --depth 8 --seconds 1) >"$TEST_DIR/new.json" 2>"$TEST_DIR/new.log" ||
            give_up "round $round: the new writer: $(tail -n 2 "$TEST_DIR/new.log")"
        sum_of disk >"$TEST_DIR/before"
        kill -CONT "$old"
        wait_for 90 process_gone "$old_load" || give_up "round $round: the old writer does not end"
        grep -q 'superseded' "$TEST_DIR/export-disk.log" || give_up "round $round: the old export was not told that it is fenced"
        sleep 1
        sum_of disk >"$TEST_DIR/after"
        cmp -s "$TEST_DIR/before" "$TEST_DIR/after" || give_up "round $round: the volume changed under its new user"
        end_process "$old"
        EXPORT_PID=$new
        export_stop
        : >"$TEST_DIR/export-disk.log"
    done
    echo "   $rounds rounds: nothing of a former user landed"
    copysets_agree
}

sum_of() {
    nbdcopy "$URI" - | sha256sum
}

# ---- space -------------------------------------------------------------------------------------

# Thin volumes that together are larger than the stores: writers wait when those are full, reads and
# removals go on, and the writers with them when there is room again.
test_full_device() {
    local load
    cluster_up --store-size 768MiB --log-size 128MiB
    create_volume first --size 512MiB
    create_volume second --size 512MiB
    bench_json first fill --rw write --bs 256KiB --iodepth 8 --io-size 400MiB --verify
    export_start second
    (exec_nbd_load write --state "$TEST_DIR/state" --seed "$SEED" --blocks 131072 --depth 16) >"$TEST_DIR/load.json" 2>"$TEST_DIR/load.log" &
    load=$!
    defer end_process "$load"
    wait_for 120 is_stuck || give_up "no store became full: $(store_space)"
    echo "   full: $(store_space)"
    process_alive "$load" || give_up "the writer ended on a full device: $(tail -n 2 "$TEST_DIR/load.log")"
    # Reads are served, and every process lives.
    qemu-io -r -f raw -c 'read 0 1M' "$URI" >"$TEST_DIR/read.log" 2>&1 || give_up "no reads from a full device"
    local name
    for name in $(chunkservers); do node_pid "$name" >/dev/null || give_up "$name ended: $(tail -n 3 "$DIR/logs/$name.log")"; done
    "$OGEE" volume rm first --yes || give_up "volume rm on a full device"
    wait_for 60 is_roomy || give_up "no room after a removal: $(store_space)"
    sleep 5
    kill "$load"
    wait_for 90 process_gone "$load" || give_up "the writer does not go on: $(store_space)"
    wait "$load" || give_up "the writer: $(tail -n 2 "$TEST_DIR/load.log")"
    jq -e '.errors == 0 and .unanswered == 0 and .acked > 0' "$TEST_DIR/load.json" >/dev/null || give_up "the writer saw $(cat "$TEST_DIR/load.json")"
    (exec_nbd_load verify --state "$TEST_DIR/state") >"$TEST_DIR/verify.json" || give_up "verify: $(cat "$TEST_DIR/verify.json")"
    echo "   went on by itself: $(jq -c '{acked, wait_max_ms}' "$TEST_DIR/load.json"), $(store_space)"
    copysets_agree
}

# Nothing has been allocated for a while.
is_stuck() {
    local before
    grep -q 'the store is full' "$DIR"/logs/cs*.log || return 1
    before=$(store_space)
    sleep 4
    [ "$(store_space)" = "$before" ]
}

is_roomy() {
    grep -q 'the store has room again' "$DIR"/logs/cs*.log
}

store_space() {
    "$OGEE" device ls -o json | jq -c '[.devices[] | (.used_bytes / .capacity_bytes * 1000 | floor / 10)]'
}

# One store is smaller than the others: when it is full its replicas are left behind, and nobody waits
# for them; they come back by themselves when there is room.
test_full_follower() {
    local load small=cs3
    cluster_up --store-size 2GiB --log-size 128MiB
    shrink_store "$small" 640MiB --store-size 2GiB --log-size 128MiB
    create_volume first --size 512MiB
    # The small one has room for either of them, not for both.
    create_volume second --size 384MiB
    bench_json first fill --rw write --bs 256KiB --iodepth 8 --io-size 400MiB --verify
    export_start second
    (exec_nbd_load write --state "$TEST_DIR/state" --seed "$SEED" --blocks 98304 --depth 16) >"$TEST_DIR/load.json" 2>"$TEST_DIR/load.log" &
    load=$!
    defer end_process "$load"
    wait_for 180 is_left_behind || give_up "nobody is left behind: $(store_space)"
    echo "   left behind: $(store_space)"
    # Far more than the small one had room for.
    sleep "$(ci_or_full 10 60)"
    process_alive "$load" || give_up "the writer ended: $(tail -n 2 "$TEST_DIR/load.log")"
    local name
    for name in $(chunkservers); do node_pid "$name" >/dev/null || give_up "$name ended: $(tail -n 3 "$DIR/logs/$name.log")"; done
    "$OGEE" device ls -o json | jq -e --arg name "$small" 'all(.devices[]; (.state == "full") == (.chunkserver == $name))' >/dev/null ||
        give_up "not just $small is full: $("$OGEE" device ls)"
    kill "$load"
    wait_for 90 process_gone "$load" || give_up "the writer does not end: $(store_space)"
    wait "$load" || give_up "the writer: $(tail -n 2 "$TEST_DIR/load.log")"
    jq -e '.errors == 0 and .unanswered == 0 and .acked > 0' "$TEST_DIR/load.json" >/dev/null || give_up "the writer saw $(cat "$TEST_DIR/load.json")"
    echo "   beside a full follower: $(jq -c '{acked, wait_max_ms}' "$TEST_DIR/load.json"), $(store_space)"
    # It may have led: then another one has taken over.
    failover_within "$(jq .wait_max_ms "$TEST_DIR/load.json")" "of a writer beside a full follower"
    (exec_nbd_load verify --state "$TEST_DIR/state") >"$TEST_DIR/verify.json" || give_up "verify: $(cat "$TEST_DIR/verify.json")"
    "$OGEE" volume rm first --yes || give_up "volume rm beside a full follower"
    wait_for 180 is_level || give_up "$small does not catch up: $("$OGEE" copyset ls)"
    copysets_agree
}

# shrink_store NAME SIZE OPTION...   the cluster anew, from nothing, with one smaller store
shrink_store() {
    cluster_emptied
    sed -i "s/^create = .*/create = \"$2\"/" "$DIR/conf/$1.toml"
    cluster_again "${@:3}"
}

is_left_behind() {
    grep -q "a follower's store is full: it is left behind" "$DIR"/logs/cs*.log
}

# No replica lacks anything.
is_level() {
    is_healthy && "$OGEE" copyset check -o json
}

# ---- overload ----------------------------------------------------------------------------------

# 64 clients against one shard a node: memory stays flat, nobody starves, nobody sees an error.
test_overload() {
    local clients=64 at load pids=() pid seconds peak least most
    seconds=$(ci_or_full 15 60)
    cluster_up --copysets 4
    create_volume warm --size 256MiB
    bench_json warm warm --rw randwrite --bs 64KiB --iodepth 64 --runtime 5
    echo "   one client: $(resident_mib)"
    for ((at = 1; at <= clients; at++)); do create_volume "v$at" --size 64MiB; done
    for ((at = 1; at <= clients; at++)); do
        load=(4KiB 4)
        [ $((at % 4)) != 0 ] || load=(1MiB 64)
        "$OGEE" bench "v$at" --rw randwrite --bs "${load[0]}" --iodepth "${load[1]}" --ramp-time 3 --runtime "$seconds" -o json \
            >"$TEST_DIR/load.$at" 2>"$TEST_DIR/load.$at.err" &
        pids+=($!)
        defer end_process $!
    done
    for pid in "${pids[@]}"; do wait "$pid" || give_up "a client failed: $(tail -qn 1 "$TEST_DIR"/load.*.err | sort | uniq -c | head -n 3)"; done
    echo "   $clients clients: $(resident_mib)"
    local name
    for name in $(chunkservers); do
        peak=$(($(awk '/^VmHWM/ { print $2 }' "/proc/$(node_pid "$name")/status") / 1024))
        [ "$peak" -lt 1024 ] || give_up "$name used $peak MiB"
    done
    # Those that ask for little: each gets its share.
    for ((at = 1; at <= clients; at++)); do [ $((at % 4)) = 0 ] || jq '.jobs[0].write.iops' "$TEST_DIR/load.$at"; done | sort -n >"$TEST_DIR/shares"
    least=$(head -n 1 "$TEST_DIR/shares") most=$(tail -n 1 "$TEST_DIR/shares")
    echo "   IOPS of the 48 small ones: least $least, most $most; throttled $(counter_sum throttled_requests)"
    awk -v least="$least" -v most="$most" 'BEGIN { exit !(least > 0 && least * 6 >= most) }' || give_up "unfair: least $least, most $most IOPS"
}

# ---- idle --------------------------------------------------------------------------------------

# 64 groups a shard that nobody wants anything of cost next to nothing, and wake when somebody does.
test_idle() {
    local name pid before=() at=0 seconds used
    seconds=$(ci_or_full 10 60)
    cluster_up --copysets 64 --store-size 2GiB --log-size 64MiB
    wait_for 40 all_quiet 64 || give_up "not quiet: $(quiet_groups)"
    for name in $(chunkservers); do before+=("$(cpu_ticks "$name")"); done
    sleep "$seconds"
    for name in $(chunkservers); do
        used=$(($(cpu_ticks "$name") - before[at]))
        at=$((at + 1))
        echo "   $name: $((used * 1000 / seconds / $(getconf CLK_TCK) / 10)).$((used * 1000 / seconds / $(getconf CLK_TCK) % 10)) % of a core, 64 quiet groups"
        # Two parts in a hundred.
        [ $((used * 100)) -le $((2 * seconds * $(getconf CLK_TCK))) ] || give_up "$name: $used ticks in $seconds s"
    done
    # The first write wakes its group; so does the death of those that led.
    create_volume disk --size 256MiB
    bench_json disk first --rw randwrite --bs 4KiB --iodepth 1 --rate-iops 2 --runtime 8
    jq -e '.jobs[0].write.total_ios > 0' "$TEST_DIR/first.json" >/dev/null || give_up "no write to a quiet group"
    echo "   writes to quiet groups: longest $(jq '.jobs[0].write.lat_ns.max / 1000000 | floor' "$TEST_DIR/first.json") ms"
    wait_for 40 all_quiet 64 || give_up "not quiet again: $(quiet_groups)"
    local start=$EPOCHREALTIME
    node_kill cs1
    wait_for 20 leads_all 64 || give_up "not all groups have a leader: $(leaders_of cs2) and $(leaders_of cs3)"
    echo "   64 quiet groups led again after $(((${EPOCHREALTIME/./} - ${start/./}) / 1000)) ms (reports come once a second)"
}

cpu_ticks() {
    awk '{ print $14 + $15 }' "/proc/$(node_pid "$1")/stat"
}

gauge_of() {
    metrics_of "$1" | awk -v name="ogee_chunkserver_$2" '$1 ~ "^" name "({|$)" { sum += $2 } END { print sum + 0 }'
}

quiet_groups() {
    local name
    for name in $(chunkservers); do gauge_of "$name" quiet_groups; done | tr '\n' ' '
}

all_quiet() {
    local name
    for name in $(chunkservers); do [ "$(gauge_of "$name" quiet_groups)" = "$1" ] || return 1; done
}

leaders_of() {
    gauge_of "$1" leaders
}

leads_all() {
    [ $(($(leaders_of cs2) + $(leaders_of cs3))) = "$1" ]
}

# ---- write amplification -----------------------------------------------------------------------

# Bytes that reach the devices for each byte written, on every replica, over more than the log holds.
test_amplification() {
    local log=128MiB size bytes
    size=$(ci_or_full 1GiB 4GiB) bytes=$(ci_or_full 640MiB 4GiB)
    cluster_up --log-size "$log" --store-size "$(ci_or_full 4GiB 12GiB)"
    create_volume disk --size "$size"
    amplified "1 MiB, depth 8" 1.1 --rw write --bs 1MiB --iodepth 8 --io-size "$bytes"
    amplified "4 KiB random, depth 64" 2.5 --rw randwrite --bs 4KiB --iodepth 64 --io-size "$(ci_or_full 320MiB 1GiB)"
    [ "$FULL" = 0 ] || amplified "4 KiB random, depth 1" 99 --rw randwrite --bs 4KiB --iodepth 1 --io-size 128MiB
}

# amplified WHAT BAR OPTION...
amplified() {
    local before after written ratio
    wait_for 60 written_back || give_up "blocks stay in the log"
    before=$(counter_sum device_written_bytes)
    bench_json disk amplified "${@:3}"
    # Also what a follower still lacks counts.
    copysets_agree >/dev/null
    sleep 1.5
    wait_for 60 written_back || give_up "blocks stay in the log"
    sleep 1.5
    after=$(counter_sum device_written_bytes)
    written=$(jq '.jobs[0].write.io_bytes' "$TEST_DIR/amplified.json")
    ratio=$(awk -v bytes="$((after - before))" -v written="$written" 'BEGIN { printf "%.3f", bytes / written / 3 }')
    grep -h 'too far behind' "$DIR"/logs/cs*.log | cut -c1-200 | tail -n 3 || true
    echo "   $1: $ratio bytes to each device for a byte written (bar $2), $((written / 1048576)) MiB"
    awk -v ratio="$ratio" -v bar="$2" 'BEGIN { exit !(ratio <= bar && ratio >= 1) }' || give_up "$1: $ratio"
}

written_back() {
    local name
    for name in $(chunkservers); do [ "$(gauge_of "$name" overlay_blocks)" = 0 ] || return 1; done
}

# ---- replacing ---------------------------------------------------------------------------------

# A chunkserver comes back without its store, under load: what it lost is said, and each replica is
# replaced by one under a new id.
test_replace() {
    local load victim=cs3
    cluster_up --copysets 4
    make_volumes 256MiB
    writer_begins 8
    sleep 1
    node_kill "$victim"
    find "$DIR/data" -name "$victim-*.store" -delete
    node_start "$victim"
    wait_for 30 has_device "$victim" || give_up "no new device: $("$OGEE" device ls)"
    wait_for 60 all_missing "$victim" || give_up "not said to be missing: $("$OGEE" copyset ls)"
    "$OGEE" status >"$TEST_DIR/status" || [ $? = 3 ] || give_up "status"
    grep -q 'copyset replace' "$TEST_DIR/status" || give_up "status does not say what to do: $(cat "$TEST_DIR/status")"
    replace_all_of "$victim"
    wait_healthy 120
    # The two that were there all the time are not needed for what was written.
    writer_ends "$load"
    echo "   replaced under load: $(jq -c '{acked, wait_max_ms}' "$TEST_DIR/load.json")"
    copysets_agree
}

# replace_all_of NAME   each of its replicas by a new one in the same place
replace_all_of() {
    local copyset replica
    while read -r copyset replica; do
        "$OGEE" copyset replace "$copyset" --replica "$replica" --to "$1" >>"$TEST_DIR/replace.log" 2>&1 || give_up "copyset replace: $(tail -n 3 "$TEST_DIR/replace.log")"
    done < <("$OGEE" copyset ls -o json | jq -r --arg name "$1" '.copysets[] | .id as $id | .replicas[] | select(.chunkserver == $name) | "\($id) \(.id)"')
}

has_device() {
    "$OGEE" device ls -o json | jq -e --arg name "$1" 'any(.devices[]; .chunkserver == $name and .state == "ok")'
}

all_missing() {
    "$OGEE" copyset ls -o json | jq -e --arg name "$1" 'all(.copysets[]; any(.replicas[]; .chunkserver == $name and .state == "missing"))'
}

# ---- rot ---------------------------------------------------------------------------------------

# Bits flip in the stores of all three, and writes go to a neighbour's place, in other blocks of each, and in one copy of pages
# that map them. One pass of scrubbing that each store is asked for finds it all, under a load that sees nothing of it: first
# while nobody reads the damaged volume, then while all of it is read again and again.
test_rot() {
    local blocks=4096 count load reads node all
    count=$(ci_or_full 10 168)
    # In two rounds, on each of three, flipped bits and blocks that misdirected writes have damaged.
    all=$((2 * 3 * 2 * count))
    cluster_up --store-size 1GiB --log-size 64MiB
    scrub_all --pause
    create_volume other --size 256MiB
    create_volume victim --size 64MiB
    export_start victim
    flip_blocks fill --uri "$URI" --blocks "$blocks" >/dev/null || give_up "fill"
    wait_for 60 all_written_back || give_up "blocks stay in the log"
    bench_json other load --rw randrw --bs 4KiB --iodepth 8 --rate-iops 500 --runtime "$(ci_or_full 10 120)" --verify &
    load=$!
    defer end_process "$load"
    rot_all 1
    # The wish first: it would come too late otherwise, for a pass that began with the end of the pause.
    scrub_all --now
    scrub_all --resume
    is_repaired 1
    [ "$(counter_sum blocks_repaired_by_read)" = 0 ] || give_up "nobody has read it: $(repaired_by)"
    scrub_all --pause
    rot_all 2
    reads=$TEST_DIR/reads
    read_again_and_again "$blocks" "$reads" &
    defer end_process $!
    wait_for 60 test -s "$reads" || give_up "the damaged volume is not read"
    scrub_all --now
    scrub_all --resume
    is_repaired 2
    touch "$TEST_DIR/enough"
    wait_for 60 grep -q ended "$reads" || give_up "reads of the damaged volume do not end: $(tail -n 3 "$reads")"
    ! grep -v -e ended -e '"wrong": 0}' "$reads" || give_up "reads of the damaged volume"
    wait "$load" || give_up "the load beside it: $(tail -n 3 "$TEST_DIR/load.log")"
    wait_for 30 has_repaired "$all" || give_up "$(counter_sum blocks_repaired) of $all are counted"
    [ "$(repaired_by sum)" = "$(counter_sum blocks_repaired)" ] || give_up "not all are known by who found them: $(repaired_by)"
    wait_for 30 devices_show_repaired "$all" || give_up "not shown: $("$OGEE" device ls -o json | jq -c '[.devices[].repairs]')"
    for node in $(chunkservers); do
        wait_for 30 events_tell_of "$node" || give_up "no event, or too many, of what was repaired on $node: $("$OGEE" events)"
    done
    echo "   found by$(repaired_by)"
    echo "   $all blocks and $(counter_sum metadata_copies_repaired) copies of metadata pages repaired by $(counter_sum scrub_passes) passes of three stores, $(($(counter_sum scrubbed_bytes) >> 20)) MiB read; the damaged volume was read $(grep -c wrong "$reads") times"
    copysets_agree
}

# repaired_by [sum]   who had found the blocks that were repaired, or how many those are together
repaired_by() {
    local by count sum=0 text=''
    for by in read scrub compare copy peer; do
        count=$(counter_sum "blocks_repaired_by_$by")
        sum=$((sum + count)) text="$text $by $count,"
    done
    if [ $# -gt 0 ]; then echo "$sum"; else echo "${text%,}"; fi
}

# rot_all ROUND   damages data and metadata of all three
rot_all() {
    local node how
    for node in $(chunkservers); do
        for how in flip misdirect; do
            flip_blocks rot --how "$how" --store "$(store_of "$node")" --blocks "$blocks" --count "$count" --seed "$((SEED + $1))" --used "$TEST_DIR/used" >/dev/null || give_up "rot on $node"
        done
        flip_blocks rotmeta --store "$(store_of "$node")" --count 6 --seed "$((SEED + $1))" >>"$TEST_DIR/rotmeta.json" || give_up "rot of metadata on $node: $(tail -n 1 "$TEST_DIR/rotmeta.json")"
    done
}

# is_repaired ROUND   all of it. A pass leaves what it cannot repair at the moment, beside a load, to the next one: how many it
# took is printed, and they are bounded.
is_repaired() {
    local passes more
    for more in 1 2 3 4; do
        if wait_for "$(ci_or_full 30 150)" all_whole; then break; fi
        [ "$more" -lt 4 ] || give_up "not repaired: $(for node in $(chunkservers); do flip_blocks whole --store "$(store_of "$node")" --used "$TEST_DIR/used"; done | xargs)"
        scrub_all --now
    done
    wait_for "$(ci_or_full 60 300)" have_passed "$1" || give_up "the passes do not end: $("$OGEE" device ls)"
    passes=$(counter_sum scrub_passes)
    echo "   round $1: repaired, $passes passes of three stores so far"
    [ "$passes" -le $((3 * 4 * $1)) ] || give_up "$passes passes of three stores"
}

all_whole() {
    local node
    for node in $(chunkservers); do
        flip_blocks whole --store "$(store_of "$node")" --used "$TEST_DIR/used" || return 1
        flip_blocks wholemeta --store "$(store_of "$node")" || return 1
    done
}

have_passed() {
    "$OGEE" device ls -o json | jq -e --argjson passes "$1" 'all(.devices[]; .scrub.passes >= $passes)'
}

# read_again_and_again BLOCKS FILE   all of the volume that is exported
read_again_and_again() {
    while [ ! -e "$TEST_DIR/enough" ]; do
        flip_blocks check --uri "$URI" --blocks "$1" >>"$2" 2>&1 || true
    done
    echo ended >>"$2"
}

# Blocks of one store get other contents and checksums that fit them: the replicas are compared, two are right, and
# nobody has to do anything, under a load that sees nothing of it. Where all three differ nothing is guessed: it is said
# where, also after all were killed. Paused, nothing is compared, over restarts too.
test_differ() {
    local blocks=512 load rewritten cs1 cs2 node
    OGEE_CHUNKSERVER__SCRUB__PERIOD_S=3 cluster_up --store-size 1GiB --log-size 64MiB --copysets 4
    read -r cs1 cs2 _ < <(chunkservers | xargs)
    create_volume other --size 64MiB
    create_volume victim --size 64MiB
    export_start victim
    flip_blocks fill --uri "$URI" --blocks "$blocks" >/dev/null || give_up "fill"
    wait_for 60 all_written_back || give_up "blocks stay in the log"
    make_differ "$cs1" 5 2
    bench_json other load --rw randwrite --bs 4KiB --iodepth 4 --rate-iops 200 --runtime 8 --verify &
    load=$!
    defer end_process "$load"
    wait_for 60 has_rewritten 5 || give_up "$(counter_sum blocks_differing) differ, $(counter_sum blocks_rewritten) are put right"
    wait "$load" || give_up "the load beside it: $(tail -n 3 "$TEST_DIR/load.log")"
    flip_blocks check --uri "$URI" --blocks "$blocks" >"$TEST_DIR/check.json" || give_up "reads: $(cat "$TEST_DIR/check.json")"
    echo "   5 blocks put right, $(($(counter_sum compared_bytes) >> 20)) MiB compared; longest write beside it $(jq -c '.jobs[0].write.clat_ns.max / 1e6 | round' "$TEST_DIR/load.json") ms"
    copysets_agree

    wait_for 60 all_written_back || give_up "blocks stay in the log"
    scrub_all --pause
    make_differ "$cs1" 1 2
    make_differ "$cs2" 1 3
    is_paused "$cs1" >/dev/null || give_up "a restart forgets a pause: $("$OGEE" device ls)"
    rewritten=$(counter_sum blocks_rewritten)
    scrub_all --resume
    wait_for 60 says OGEE-1030 || give_up "not said: $("$OGEE" status)"
    "$OGEE" status >"$TEST_DIR/status" || true
    grep -q 'volume victim, bytes 0 to 4096' "$TEST_DIR/status" || give_up "not where: $(cat "$TEST_DIR/status")"
    [ "$(counter_sum blocks_rewritten)" -le "$rewritten" ] || give_up "something was guessed"
    # Also after all of them were killed: nothing is compared meanwhile.
    scrub_all --pause
    for node in $(chunkservers); do node_kill "$node"; done
    for node in $(chunkservers); do node_start "$node"; done
    for node in $(chunkservers); do
        wait_for 60 is_paused "$node" || give_up "$node does not come back: $("$OGEE" device ls)"
    done
    # Three heartbeats of the new processes: what the old ones had said is forgotten.
    sleep 3
    says OGEE-1030 || give_up "forgotten by a restart: $("$OGEE" status)"
    scrub_all --resume
    flip_blocks fill --uri "$URI" --blocks "$blocks" >/dev/null || give_up "fill again"
    scrub_all --now
    wait_for 90 agrees_again || give_up "written anew, and still: $("$OGEE" status)"
    copysets_agree
}

# scrub_all WISH
scrub_all() {
    local node
    for node in $(chunkservers); do "$OGEE" device scrub "$node" "$1" >>"$TEST_DIR/scrub.log" 2>&1 || give_up "device scrub $node $1: $(tail -n 3 "$TEST_DIR/scrub.log")"; done
}

# make_differ NODE COUNT STAMP   it ends in an orderly way, so that all is in its store
make_differ() {
    local pid
    pid=$(node_pid "$1")
    kill -TERM "$pid"
    wait_for 30 process_gone "$pid" || give_up "$1 does not end"
    flip_blocks differ --store "$(store_of "$1")" --blocks 512 --count "$2" --to "$3" >"$TEST_DIR/differ.json" || give_up "$1: $(cat "$TEST_DIR/differ.json")"
    node_start "$1"
    wait_healthy
}

has_rewritten() {
    [ "$(counter_sum blocks_rewritten)" -ge "$1" ]
}

says() {
    { "$OGEE" status || true; } | grep -q "$1"
}

agrees_again() {
    ! says OGEE-1030
}

is_paused() {
    "$OGEE" device ls -o json | jq -e --arg name "$1" 'any(.devices[]; .chunkserver == $name and .online and .scrub_paused)'
}

store_of() {
    find "$DIR/data" -path "*$1*" -name '*.store'
}

devices_show_repaired() {
    "$OGEE" device ls -o json | jq -e --argjson all "$1" '([.devices[].repairs.blocks] | add) >= $all'
}

# events_tell_of NODE   that something was repaired there: at once, and then at most once a minute
events_tell_of() {
    "$OGEE" events -o json | jq -e --arg name "$1:" '[.events[] | select(.kind == "damage_repaired" and (.subject | startswith($name)))] | length >= 1 and length <= 2 + (.[-1].unix_ms - .[0].unix_ms) / 60000'
}

has_repaired() {
    [ "$(counter_sum blocks_repaired)" -ge "$1" ]
}

# ---- healing -----------------------------------------------------------------------------------

# Nobody does anything: a chunkserver that is gone for good is replaced, also when the metadata server that
# saw to it dies meanwhile; then another one is drained until it is empty, and leaders that all sit on one
# are evened out. All under a verified load.
test_heal() {
    local load start led lost drained stay
    heal_cluster --nodes 5 --mds-nodes 3 --copysets "$(ci_or_full 6 24)" --store-size 2GiB --log-size 128MiB
    make_volumes "$(ci_or_full 128MiB 512MiB)"
    writer_begins 8

    # Of five that register one after another, the last may have come too late to get replicas.
    read -r lost drained _ < <(carriers)
    read -r -a stay < <(chunkservers | grep -vxe "$lost" -e "$drained" | xargs)
    start=$(now_ms)
    node_kill "$lost"
    find "$DIR/data" -name "$lost-*.store" -delete
    wait_for 30 jobs_run recover || give_up "no job 30 s after $lost died: $("$OGEE" status)"
    mds_leader_kill
    wait_for 90 empty_and_whole "$lost" || give_up "not whole: $("$OGEE" job ls) $("$OGEE" copyset ls)"
    echo "   whole again $(($(now_ms) - start)) ms after $lost died, 4000 of which were waited"
    "$OGEE" server rm "$lost"

    start=$(now_ms)
    "$OGEE" server drain "$drained" >/dev/null
    wait_for 90 is_marked "$drained" empty || give_up "$drained is not empty: $("$OGEE" job ls) $("$OGEE" copyset ls)"
    wait_for 10 empty_and_whole "$drained" || give_up "drained at the cost of others: $("$OGEE" copyset ls)"
    "$OGEE" server ok-to-stop "$drained" -o json | jq -e '.ok and .degraded == []' >/dev/null || give_up "$drained is empty and may not stop"
    echo "   drained in $(($(now_ms) - start)) ms"
    node_kill "$drained"
    wait_for 20 server_removed "$drained" || give_up "$drained is not forgotten: $(tail -n 3 "$TEST_DIR/rm.log")"
    wait_healthy 30

    leaders_to "${stay[0]}"
    led=$(led_by "${stay[@]}") start=$(now_ms)
    "$OGEE" copyset balance-leaders --now >"$TEST_DIR/balance" || give_up "balance: $(cat "$TEST_DIR/balance")"
    # shellcheck disable=SC2046 # one word each
    is_even $(led_by "${stay[@]}") || give_up "leaders: $(led_by "${stay[@]}")"
    echo "   leaders from $led to $(led_by "${stay[@]}") in $(($(now_ms) - start)) ms"

    writer_ends "$load"
    echo "   all under load: $(jq -c '{acked, wait_max_ms}' "$TEST_DIR/load.json")"
    copysets_agree
}

# A chunkserver in maintenance is stopped for longer than others are waited for: nothing is made anew, nobody is alarmed, a
# second one is refused, and no writer sees an error.
test_maintenance() {
    local load answer
    heal_cluster --nodes 4 --copysets 6 --store-size 2GiB --log-size 128MiB
    make_volumes 64MiB
    writer_begins 8
    ! "$OGEE" server maintenance nobody >"$TEST_DIR/nobody" 2>&1 || give_up "a chunkserver that there is not"
    answer=$("$OGEE" server maintenance cs1 --for 2h -o json) || give_up "maintenance: $answer $("$OGEE" status)"
    jq -e '.may_stop and .leaders == 0' <<<"$answer" >/dev/null || give_up "it may not stop: $answer"
    [ "$(led_by cs1)" = 0 ] || give_up "cs1 leads $(led_by cs1)"
    end_process "$(node_pid cs1)"
    # Others are given up after four seconds here.
    sleep 9
    [ "$("$OGEE" job ls -o json | jq '[.jobs[] | select(.kind == "recover")] | length')" = 0 ] || give_up "made anew: $("$OGEE" job ls)"
    "$OGEE" status -o json >"$TEST_DIR/status.json" || true
    jq -e '[.codes[].code] == ["OGEE-1016"]' "$TEST_DIR/status.json" >/dev/null || give_up "alarms: $(cat "$TEST_DIR/status.json")"
    ! "$OGEE" server maintenance cs2 >"$TEST_DIR/second" 2>&1 || give_up "a second one: $(cat "$TEST_DIR/second")"
    grep -q OGEE-2080 "$TEST_DIR/second" || give_up "refused otherwise: $(cat "$TEST_DIR/second")"
    node_start cs1
    "$OGEE" server maintenance cs1 --cancel >/dev/null
    wait_healthy 60
    writer_ends "$load"
    echo "   under load: $(jq -c '{acked, wait_max_ms}' "$TEST_DIR/load.json")"
    copysets_agree
}

# Two chunkservers are declared lost: copysets that had a majority there are reset, and made whole again. Then the two come back, an
# old majority: they are told to go before they open anything. A user that was there all the time finds all that was
# acknowledged, since the survivors had it.
test_reset() {
    local load gone id ids refused
    heal_cluster --nodes 5 --copysets 6 --store-size 2GiB --log-size 128MiB
    make_volumes 64MiB
    writer_begins 8
    sleep 3
    writer_ends "$load"
    # Followers have everything.
    sleep 2
    read -r -a gone < <("$OGEE" copyset ls -o json | jq -r '.copysets[0].replicas[:2] | map(.chunkserver) | join(" ")')
    ! "$OGEE" copyset reset 1 --yes >"$TEST_DIR/refused" 2>&1 || give_up "reset with a majority there"
    node_kill "${gone[@]}"
    wait_for 30 are_lost "${gone[@]}" || give_up "not lost: $(tail -n 3 "$TEST_DIR/lost.log")"
    mapfile -t ids < <(without_majority)
    [ ${#ids[@]} -gt 0 ] || give_up "no copyset is without a majority: $("$OGEE" copyset ls)"
    "$OGEE" status -o json >"$TEST_DIR/status.json" || true
    jq -e '[.codes[].code] | index("OGEE-1032")' "$TEST_DIR/status.json" >/dev/null || give_up "health: $(cat "$TEST_DIR/status.json")"
    refused=$("$OGEE" copyset reset "${ids[0]}" 2>&1 </dev/null) && give_up "reset without a word"
    grep -q 'give --yes' <<<"$refused" || give_up "refused otherwise: $refused"
    for id in "${ids[@]}"; do
        "$OGEE" copyset reset "$id" --dry-run >>"$TEST_DIR/reset.log" || give_up "what is lost of $id is not told"
        "$OGEE" copyset reset "$id" --yes >>"$TEST_DIR/reset.log" 2>&1 || give_up "reset $id: $(tail -n 3 "$TEST_DIR/reset.log")"
    done
    grep -q disk "$TEST_DIR/reset.log" || give_up "the volume is not named: $(cat "$TEST_DIR/reset.log")"
    for id in "${gone[@]}"; do node_start "$id"; done
    wait_for 120 are_whole || give_up "not whole: $("$OGEE" copyset ls) $("$OGEE" job ls)"
    (exec_nbd_load verify --state "$TEST_DIR/state") >"$TEST_DIR/verify.json" || give_up "verify: $(cat "$TEST_DIR/verify.json")"
    for id in "${gone[@]}"; do
        grep -q 'no member any more' "$DIR/logs/$id.log" || give_up "$id was not fenced when it came back"
        "$OGEE" server lost "$id" --cancel >/dev/null
    done
    wait_healthy 60
    copysets_agree
    echo "   ${#ids[@]} of 6 copysets had lost their majority on ${gone[*]}"
}

# are_lost NAME...   each can be declared lost: nobody has heard of it for a while
are_lost() {
    local name
    for name in "$@"; do "$OGEE" server lost "$name" --yes >>"$TEST_DIR/lost.log" 2>&1 || return 1; done
}

# without_majority   copysets of which two replicas are offline
without_majority() {
    "$OGEE" copyset ls -o json | jq -r '.copysets[] | select([.replicas[] | select(.online | not)] | length >= 2) | .id'
}

# Three replicas that are well each, and nothing to delete. What had one replica on those that came back may have kept it.
are_whole() {
    "$OGEE" copyset ls -o json |
        jq -e 'all(.copysets[]; (.replicas | length == 3) and all(.replicas[]; .role == "voter" and .state == "ok"))'
}

# A fourth chunkserver, in a zone of its own, comes to a cluster under a verified load: nobody does anything, and it
# gets its part of the replicas, and then of the leaders. No writer sees an error, and nothing is moved twice.
test_grow() {
    local load start copysets jobs
    copysets=$(ci_or_full 8 24)
    export OGEE_MDS_SERVER__HEARTBEAT_MS=500 OGEE_MDS_SERVER__HEAL__RECOVER_AFTER_MS=20000
    export OGEE_MDS_SERVER__HEAL__REPLICA_BALANCE_AFTER_MS=2000 OGEE_MDS_SERVER__HEAL__BALANCE_AFTER_MS=1000
    cluster_up --copysets "$copysets" --store-size 2GiB --log-size 128MiB
    make_volumes "$(ci_or_full 128MiB 512MiB)"
    writer_begins 8
    sleep 2
    "$OGEE" copyset balance-replicas --now --dry-run >"$TEST_DIR/dry" || give_up "dry run: $(cat "$TEST_DIR/dry")"
    grep -q '^0 replicas would move' "$TEST_DIR/dry" || give_up "uneven from the start: $(cat "$TEST_DIR/dry")"

    start=$(now_ms)
    node_add cs4 zone4
    wait_for 30 jobs_run balance || give_up "nothing moves: $("$OGEE" status)"
    wait_for "$(ci_or_full 120 600)" devices_even || give_up "uneven: $("$OGEE" device ls) $("$OGEE" job ls)"
    wait_healthy 60
    echo "   replicas: $(carried_by) $(($(now_ms) - start)) ms after cs4 came, 2000 of which were waited"
    jobs=$("$OGEE" job ls -o json | jq '[.jobs[] | select(.kind == "balance" and .state == "done")] | length')
    # Each of four is to have three quarters of what each of three had.
    [ "$jobs" -le $((copysets * 3 / 4 + 1)) ] || give_up "$jobs moves for $copysets copysets: $("$OGEE" job ls)"
    wait_for 60 leaders_even || give_up "leaders: $(led_by cs1 cs2 cs3 cs4) $("$OGEE" job ls)"
    echo "   leaders: $(led_by cs1 cs2 cs3 cs4) after $(($(now_ms) - start)) ms; $jobs moves"
    sleep 5
    [ "$("$OGEE" job ls -o json | jq '[.jobs[] | select(.kind == "balance")] | length')" = "$jobs" ] || give_up "it does not come to rest: $("$OGEE" job ls)"

    writer_ends "$load"
    echo "   all under load: $(jq -c '{acked, wait_max_ms}' "$TEST_DIR/load.json")"
    copysets_agree
}

# node_add NAME ZONE   one more chunkserver, like cs1 but for its name, zone, ports and devices
node_add() {
    local conf=$DIR/conf/$1.toml address
    sed -e "s/^name = .*/name = \"$1\"/" -e "s/^zone = .*/zone = \"$2\"/" -e "s/^server = .*/server = \"$1\"/" \
        -e "s/cs1-/$1-/" "$DIR/conf/cs1.toml" >"$conf"
    while read -r address; do
        sed -i "s/\"$address\"/\"127.0.0.1:$(free_port)\"/" "$conf"
    done < <(grep -E '^(listen|metrics) = ' "$conf" | grep -oE '[0-9.]+:[0-9]+')
    node_start "$1"
}

# A port that nobody has, below those that the kernel gives to outgoing connections.
free_port() {
    python3 -c '
import random, socket
for port in random.sample(range(10000, 30000), 200):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break'
}

leaders_even() {
    # shellcheck disable=SC2046 # one word each
    is_even $(led_by cs1 cs2 cs3 cs4)
}

# ---- copies ------------------------------------------------------------------------------------

# A replica that lost its store gets its contents back under a full random-write load, on a log that
# holds a few seconds of it, although the copy is broken off three times. What the writers keep is
# compared within one run of one load: beside the copy, from its last break to its end, against the
# times before and after, with all three nodes up; both, since the machine's other work may change.
# They are to keep 70 % of it. The slice's copy takes seconds, in which a busy machine takes more away
# than a copy may: there the bar is half.
test_copy() {
    local size log victim=cs3 load leader before during after start end kept
    kept=$(ci_or_full 50 70)
    size=$(ci_or_full 512 4096) log=$(ci_or_full 64MiB 256MiB)
    cluster_up --copysets 1 --log-size "$log" --store-size "$(ci_or_full 2GiB 8GiB)"
    create_volume disk --size "${size}MiB"
    bench_json disk fill --rw write --bs 1MiB --iodepth 8 --io-size "${size}MiB"
    # Not the leader: who is to go, goes before the load is measured with its leader.
    [ "$(volume_leader disk)" != "$victim" ] || victim=cs2
    "$OGEE" bench disk --rw randwrite --bs 4KiB --iodepth 32 --runtime "$(ci_or_full 600 3000)" -o json >"$TEST_DIR/load.json" 2>"$TEST_DIR/load.log" &
    load=$!
    defer end_load "$load"
    sample_writes "$load" >"$TEST_DIR/writes" &
    defer end_load $!
    # The log has filled by then, and is written back while it fills.
    sleep "$(ci_or_full 10 20)"
    start=$(now_ms)
    sleep "$(ci_or_full 8 60)"
    before=$(writes_between "$start" "$(now_ms)")

    node_kill "$victim"
    find "$DIR/data" -name "$victim-*.store" -delete
    node_start "$victim"
    wait_for 30 has_device "$victim" || give_up "no new device: $("$OGEE" device ls)"
    wait_for 60 all_missing "$victim" || give_up "not said to be missing: $("$OGEE" copyset ls)"
    replace_all_of "$victim"

    # Broken off by a target that stands still for longer than a step may take, ...
    copied_further $((size / 8))
    stop_for "$victim" 8000
    # ... by the target's death, ...
    copied_further $((size / 8))
    node_kill "$victim"
    sleep 1
    node_start "$victim"
    # ... and by the source's. That is two of three voters: writers wait until it is back.
    copied_further $((size / 8))
    leader=$(volume_leader disk)
    node_kill "$leader"
    sleep 1
    node_start "$leader"
    copied_further 1

    start=$(now_ms)
    wait_healthy "$(ci_or_full 300 1800)"
    end=$(now_ms)
    process_alive "$load" || give_up "the load ended before the copy: $(cat "$TEST_DIR/load.log")"
    during=$(writes_between "$start" "$end")
    sleep "$(ci_or_full 8 60)"
    after=$(writes_between "$end" "$(now_ms)")
    echo "   broken off three times, then $size MiB in $(((end - start) / 1000)) s on a log of $log"
    echo "   writes a second: $before before, $during beside the copy, $after after: $((during * 200 / (before + after))) %; $(slowest_between "$start" "$end") in its slowest 5 s"
    copysets_agree
    kill "$load"
    [ "$(slowest_between "$start" "$end")" -gt 0 ] || give_up "writers stood still"
    [ $((during * 200)) -ge $(((before + after) * kept)) ] || give_up "writers kept $during of $before and $after a second: less than $kept %"
}

# A replica is moved while everything is read for what rots without a pause, and nobody asks for anything: both together keep
# to what a device may give, on each of them, use most of it, and neither starves. After it replicas are compared.
test_budget() {
    local limit_mib=16 source target replica scrubbed name
    OGEE_CHUNKSERVER__BACKGROUND__DEVICE_RATE="${limit_mib}MiB" OGEE_CHUNKSERVER__SCRUB__PERIOD_S=1 \
        cluster_up --nodes 4 --copysets 1 --store-size 1GiB --log-size 64MiB
    create_volume disk --size 256MiB
    bench_json disk fill --rw write --bs 1MiB --iodepth 8 --io-size 256MiB
    wait_for 120 all_written_back || give_up "blocks stay in the log"
    choose_move
    # What writing it back has taken is over: nobody asks for anything.
    sleep 2
    scrubbed=$(background_of "$source" scrub)
    copy_at_limit beside '[a-z]*'
    [ "$(background_of "$source" scrub)" -gt "$scrubbed" ] || give_up "nothing was scrubbed beside the copy"
    "$OGEE" device ls -o json | jq -e 'all(.devices[]; .background.limit_bytes_per_second == 16777216)' >/dev/null || give_up "the limit is not shown: $("$OGEE" device ls)"
    wait_for 120 is_moved "$replica" || give_up "it is not moved: $("$OGEE" copyset ls)"
    # Replicas are not compared while one is being made.
    wait_for 120 has_drawn "$source" compare || give_up "nothing is compared"
    # The copy alone: what nobody else wants is its own.
    wait_for 60 has_three_members || give_up "the replica that was moved is still there: $("$OGEE" copyset ls)"
    scrub_all --pause
    choose_move
    sleep 2
    scrubbed=$(background_of "$source" '(scrub|compare)')
    copy_at_limit alone move
    [ "$(background_of "$source" '(scrub|compare)')" = "$scrubbed" ] || give_up "it was not alone"
    wait_for 120 is_moved "$replica" || give_up "it is not moved: $("$OGEE" copyset ls)"
    copysets_agree
}

# Whom to move, from a copy of whom, to whom: a replica that does not lead, to the chunkserver without one.
choose_move() {
    source=$(volume_leader disk) || give_up "no leader"
    for name in $(chunkservers); do has_replica "$name" || target=$name; done
    replica=$("$OGEE" copyset ls -o json | jq -r --arg leader "$source" '[.copysets[0].replicas[] | select(.chunkserver != $leader)][0].id')
}

# copy_has_begun BYTES   more than before has been written for it
copy_has_begun() {
    [ "$(background_of "$target" move)" -gt "$1" ]
}

has_three_members() {
    "$OGEE" copyset ls -o json | jq -e '.copysets[0].replicas | length == 3'
}

# copy_at_limit NAME KIND   moves it: no device is above the limit in any window, and what was drawn for KIND on the device
# it is copied from is 70 % of it
copy_at_limit() {
    local log=$TEST_DIR/background.$1 from to start end now seconds kinds node first
    first=$(background_of "$target" move)
    "$OGEE" copyset replace 1 --replica "$replica" --to "$target" >"$TEST_DIR/replace.log" 2>&1 || give_up "replace: $(cat "$TEST_DIR/replace.log")"
    # Finding where to begin is no part of the speed.
    wait_for 60 copy_has_begun "$first" || give_up "no copy begins: $("$OGEE" copyset ls)"
    start=$(now_ms)
    while [ $(($(background_of "$target" move) - first)) -lt $((240 << 20)) ]; do
        now=$(now_ms)
        [ $((now - start)) -le 240000 ] || give_up "the copy stands still: $(background_of "$target" move) bytes"
        for node in $(chunkservers); do echo "$node $now $(background_of "$node" '[a-z]*') $(background_of "$node" "$2")"; done >>"$log"
        sleep 1
    done
    end=$(now_ms)
    seconds=$(((end - start + 999) / 1000))
    for node in $(chunkservers); do
        # Metrics are of the last second.
        awk -v name="$node" -v limit="$limit_mib" '$1 == name {
            for (at = 1; at <= seen; at++) {
                most = limit * ((($2 - time[at]) / 1000) + 1.5) + 1
                if (($3 - bytes[at]) / 1048576 > most) { print $3 - bytes[at] " bytes in " $2 - time[at] " ms"; exit 1 }
            }
            seen++; time[seen] = $2; bytes[seen] = $3
        }' "$log" >"$TEST_DIR/over" || give_up "$node: $(cat "$TEST_DIR/over")"
    done
    read -r from to < <(awk -v name="$source" '$1 == name { if (!seen++) first = $4; last = $4 } END { printf "%.0f %.0f\n", first, last }' "$log")
    kinds=$(for name in move compare scrub; do echo -n "$name $(($(background_of "$source" "$name") >> 20)) MiB, "; done)
    echo "   $1: $(((to - from) >> 20)) MiB in $seconds s of $limit_mib MiB/s on the device it was copied from: ${kinds}since it was started"
    [ $(((to - from) * 10)) -ge $((limit_mib * seconds * 7 * 1048576)) ] || give_up "less than 70 % of the limit, and nobody asked for anything"
}

has_drawn() {
    [ "$(background_of "$1" "$2")" -gt 0 ]
}

has_replica() {
    "$OGEE" copyset ls -o json | jq -e --arg name "$1" 'any(.copysets[].replicas[]; .chunkserver == $name)' >/dev/null
}

is_moved() {
    "$OGEE" copyset ls -o json | jq -e --argjson id "$1" 'all(.copysets[].replicas[]; .id != $id and .role == "voter" and .state == "ok")' >/dev/null
}

# background_of NODE KIND   bytes drawn from the budgets of its devices; not those of the network
background_of() {
    metrics_of "$1" | awk -v name="^ogee_chunkserver_background_$2_bytes_total" '$1 ~ name && $1 !~ /network/ { sum += $2 } END { printf "%.0f\n", sum }'
}

# What reading and comparing everything without a pause costs clients: windows with it and without, in turn, in one run.
# The bars are the rounds' medians: throughput of 95 %, p99 within 5 %.
test_scrub_beside() {
    local rounds seconds pause resume read bars name
    rounds=$(ci_or_full 8 20) seconds=$(ci_or_full 8 20)
    OGEE_CHUNKSERVER__SCRUB__PERIOD_S=1 cluster_up --copysets 4 --store-size 2GiB --log-size 128MiB
    create_volume disk --size 1GiB
    bench_json disk fill --rw write --bs 1MiB --iodepth 8 --io-size 1GiB
    wait_for 120 all_written_back || give_up "blocks stay in the log"
    scrub_all --pause
    pause='' resume=''
    for name in $(chunkservers); do
        pause+="'$OGEE' device scrub $name --pause && "
        resume+="'$OGEE' device scrub $name --resume && "
    done
    read=$(background_sum)
    "$OGEE" bench ab --a-target disk --a-setup "${pause}sleep 1" --b-setup "${resume}sleep 1" --rounds "$rounds" --keep "$TEST_DIR/turns" \
        -- --rw randrw --rwmixread 70 --bs 4KiB --iodepth 8 --ramp-time 1 --runtime "$seconds" >"$TEST_DIR/ab" 2>"$TEST_DIR/ab.log" ||
        give_up "bench ab: $(tail -n 3 "$TEST_DIR/ab.log")"
    read=$((($(background_sum) - read) >> 20))
    # Of each round: with scrubbing for without it, in thousandths.
    ratios turns '.read.iops + .write.iops' >"$TEST_DIR/iops"
    ratios turns '.read.lat_ns.percentile["99.000000"]' >"$TEST_DIR/read_p99"
    ratios turns '.write.lat_ns.percentile["99.000000"]' >"$TEST_DIR/write_p99"
    echo "   $rounds rounds of $seconds s each, $read MiB read by scrubbing and comparing in those with it; with for without, median (least to most):"
    for name in iops read_p99 write_p99; do echo "   $name $(spread "$TEST_DIR/$name")"; done
    [ "$read" -gt 0 ] || give_up "nothing was scrubbed"
    bars=$(middle "$TEST_DIR/iops")
    [ "$bars" -ge 950 ] || give_up "throughput $bars thousandths"
    for name in read_p99 write_p99; do
        bars=$(middle "$TEST_DIR/$name")
        [ "$bars" -le 1050 ] || give_up "$name $bars thousandths"
    done
}

background_sum() {
    local name
    for name in $(chunkservers); do background_of "$name" '[a-z]*'; done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# ratios FOLDER FIGURE   of each round's two turns there, a-… and b-…, in thousandths, sorted
ratios() {
    local a
    for a in "$TEST_DIR/$1"/a-*.json; do
        jq -rn --slurpfile a "$a" --slurpfile b "${a%/*}/b-${a##*/a-}" "def figure: .jobs[0] | $2; (\$b[0] | figure) * 1000 / (\$a[0] | figure) | round"
    done | sort -n
}

spread() {
    awk -v middle="$(middle "$1")" '{ of[NR] = $1 } END { printf "%.3f (%.3f to %.3f)\n", middle / 1000, of[1] / 1000, of[NR] / 1000 }' "$1"
}

# A follower is away while a hundredth of the volume, scattered over all of it, is written over and over, far more
# than the log holds: it comes back by a copy of at most three hundredths.
test_away() {
    local size log parts=64 victim=cs3 part before copied
    size=$(ci_or_full 1024 4096) log=64MiB
    cluster_up --copysets 1 --log-size "$log" --store-size "$(ci_or_full 3GiB 8GiB)"
    create_volume disk --size "${size}MiB"
    bench_json disk fill --rw write --bs 1MiB --iodepth 8 --io-size "${size}MiB"
    [ "$(volume_leader disk)" != "$victim" ] || victim=cs2
    wait_for 60 written_back || give_up "blocks stay in the log"
    node_kill "$victim"
    # A hundredth: of each 64th part so much, 4 KiB each.
    for ((part = 0; part < parts; part++)); do
        bench_json disk part --rw randwrite --bs 4KiB --iodepth 32 --seed "$part" \
            --offset "$((part * size / parts))MiB" --size "$((size * 1024 / parts / 100 / 4 * 4))KiB" --io-size "$(ci_or_full 6 8)MiB"
    done
    before=$(copied_in 1024)
    node_start "$victim"
    wait_healthy 300
    copied=$(($(copied_in 1024) - before))
    echo "   away for $((parts * $(ci_or_full 6 8))) MiB of writes to a hundredth of $size MiB: back with $copied KiB, $((copied * 1000 / size / 1024)) of a thousand"
    [ "$copied" -gt 0 ] || give_up "it came back by its log: nothing was shown"
    [ $((copied * 100)) -le $((size * 1024 * 3)) ] || give_up "$copied KiB of $size MiB: more than 3 %"
    copysets_agree
}

# sample_writes PID   every second: milliseconds, and bytes written for clients at each chunkserver
sample_writes() {
    local name line
    while process_alive "$1"; do
        line=$(now_ms)
        for name in $(chunkservers); do line+=" $(counter_of "$name" client_written_bytes)"; done
        echo "$line"
        sleep 1
    done
}

# counter_of NAME COUNTER   - when it does not answer
counter_of() {
    metrics_of "$1" 2>/dev/null | awk -v name="ogee_chunkserver_$2_total" '$1 ~ "^" name "({|$)" { sum += $2; seen = 1 } END { if (seen) printf "%.0f\n", sum; else print "-" }' || true
}

# Milliseconds and blocks written meanwhile, line by line. A process that is new counts from nothing.
writes_of() {
    awk -v from="$1" -v to="$2" '{
        blocks = 0
        for (at = 2; at <= NF; at++) {
            if ($at == "-") continue
            if (at in last) blocks += ($at >= last[at] ? $at - last[at] : $at) / 4096
            last[at] = $at
        }
        if (time >= from && $1 <= to) print $1 - time, blocks
        time = $1
    }' "$TEST_DIR/writes"
}

# writes_between FROM TO   a second
writes_between() {
    writes_of "$1" "$2" | awk '{ ms += $1; blocks += $2 } END { if (!ms) exit 1; printf "%.0f\n", blocks * 1000 / ms }' ||
        give_up "no samples between $1 and $2"
}

# The least of any 5 s.
slowest_between() {
    writes_of "$1" "$2" | awk '
        { ms[NR] = $1; blocks[NR] = $2; sum_ms += $1; sum += $2; first = first ? first : 1 }
        sum_ms >= 5000 {
            rate = sum * 1000 / sum_ms
            if (least == "" || rate < least) least = rate
            while (sum_ms >= 5000) { sum_ms -= ms[first]; sum -= blocks[first]; first++ }
        }
        END { printf "%.0f\n", least == "" ? sum * 1000 / (sum_ms ? sum_ms : 1) : least }'
}

# copied_further MIB   waits until copies have sent so much more than they had
copied_further() {
    local from
    from=$(copied_mib)
    wait_for 600 copied_beyond $((from + $1)) || give_up "the copy stands still: $(copied_mib) MiB, $from before; $("$OGEE" copyset ls)"
}

copied_mib() {
    copied_in 1048576
}

# copied_in BYTES   what copies have sent, in units of so many
copied_in() {
    local name
    for name in $(chunkservers); do counter_of "$name" replica_copy_bytes; done | awk -v unit="$1" '{ sum += $1 } END { printf "%.0f\n", sum / unit }'
}

copied_beyond() {
    [ "$(copied_mib)" -gt "$1" ]
}

# ---- names -------------------------------------------------------------------------------------

# A volume in a directory is served, and renamed with its directory under a verified load; what is asked for while leading
# metadata servers are killed is done once, and each command says so.
test_names() {
    local load rounds round killed said
    cluster_up --nodes 1 --mds-nodes 3 --copysets 4 --store-size 2GiB --log-size 128MiB
    "$OGEE" dir create -p team/web >/dev/null
    create_volume team/web/disk --size 256MiB --owner ann --label tier=gold
    export_start team/web/disk
    writer_starts 8
    "$OGEE" dir rename team crew >/dev/null
    create_volume other --size 256MiB
    "$OGEE" quota set --owner ann --volumes 1 >/dev/null
    if said=$("$OGEE" volume create crew/more --size 1GiB --owner ann 2>&1); then give_up "beyond the quota"; fi
    grep -q 'OGEE-2093.*owner "ann"' <<<"$said" || give_up "refused otherwise: $said"

    rounds=$(ci_or_full 4 30)
    for ((round = 0; round < rounds; round++)); do
        killed=$(mds_leader)
        (
            "$OGEE" volume create "crew/v$round" --size 64MiB
            "$OGEE" volume resize "crew/v$round" --size 128MiB
            "$OGEE" volume rename "crew/v$round" "w$round"
            "$OGEE" volume rm "w$round" --yes
            "$OGEE" volume create "crew/v$round" --size 64MiB
        ) >"$TEST_DIR/changes.log" 2>&1 &
        said=$!
        sleep_ms $((RANDOM % 120))
        node_kill "$killed"
        wait "$said" || give_up "round $round: $(tail -n 3 "$TEST_DIR/changes.log")"
        node_start "$killed"
    done
    "$OGEE" volume ls crew/ -o json |
        jq -e --argjson rounds "$rounds" '[.volumes[].name] | length == $rounds + 1 and index("crew/web/disk") != null' >/dev/null ||
        give_up "not what was asked for: $("$OGEE" volume ls)"
    "$OGEE" volume ls --label tier=gold --owner ann -o json | jq -e '[.volumes[].name] == ["crew/web/disk"]' >/dev/null || give_up "labels: $("$OGEE" volume ls)"
    wait_for 60 "$OGEE" mds check >/dev/null || give_up "metadata servers differ: $("$OGEE" mds check 2>&1)"

    writer_ends "$load"
    export_stop
    "$OGEE" volume show crew/web/disk -o json | jq -e '.attached | not' >/dev/null || give_up "given up under the old name, and still attached"
    if "$OGEE" dir rm crew 2>"$TEST_DIR/rm.log"; then give_up "removed what is not empty"; fi
    grep -q crew/v0 "$TEST_DIR/rm.log" || give_up "not said what is in it: $(cat "$TEST_DIR/rm.log")"
    echo "   $((rounds * 5)) changes while $rounds leaders died; under load: $(jq -c '{acked, wait_max_ms}' "$TEST_DIR/load.json")"
}

# ---- the group ---------------------------------------------------------------------------------

need_packages libnbd-bin python3-libnbd qemu-utils jq curl util-linux
build_for_tests
STALE_READS=$(dirname "$OGEE")/examples/stale_reads
begin_group core
install -m 755 "$STALE_READS" "$WORK/reader"
STALE_READS=$WORK/reader

run_test stale_reads "$(ci_or_full 240 2400)" test_stale_reads
run_test fencing "$(ci_or_full 180 1200)" test_fencing
run_test full_device 360 test_full_device
when_asked full_follower 480 test_full_follower
run_test overload "$(ci_or_full 180 300)" test_overload
run_test idle "$(ci_or_full 150 240)" test_idle
run_test amplification "$(ci_or_full 240 1200)" test_amplification
run_test replace 240 test_replace
run_test rot "$(ci_or_full 300 900)" test_rot
when_asked differ 300 test_differ
run_test heal "$(ci_or_full 240 600)" test_heal
when_asked hot_leaders 300 test_hot_leaders
when_asked leader_speed 300 test_leader_speed
when_asked leader_pause "$(ci_or_full 180 480)" test_leader_pause
when_asked grow "$(ci_or_full 300 900)" test_grow
when_asked names "$(ci_or_full 240 1200)" test_names
when_asked budget 600 test_budget
when_asked scrub_beside "$(ci_or_full 500 1800)" test_scrub_beside
when_asked away "$(ci_or_full 300 900)" test_away
run_test copy "$(ci_or_full 600 3600)" test_copy
# These take longer than the gate has.
if [ "$FULL" = 1 ] || [ -n "${ONLY:-}" ]; then
    run_test maintenance 180 test_maintenance
    run_test reset 300 test_reset
    run_test limping 240 test_limping
    run_test device_replace 300 test_device_replace
    run_test eio_device 200 test_eio_device
    run_test operate 300 test_operate
fi
