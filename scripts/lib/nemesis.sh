# shellcheck shell=bash
# What is done to the cluster of chaos.sh, and the tests made of it. Sourced, not run.
#
# A fault is fault_KIND NODE (it begins), seen_KIND NODE (did it really happen: ends with 0 and says
# how), heal_KIND NODE (it is over). One fault at a time: one replica of three is what may be missing.

# Longest wait that a fault may cost a client, in milliseconds. docs/reliability.md.
declare -A GAP_BAR_MS=([kill]=2000 [stop]=3000 [cut]=3000 [peers]=3000)
NEMESES=(kill stop cut deaf mute oneway peers lossy slow full mds)

# ---- processes ---------------------------------------------------------------------------------

fault_kill() {
    VICTIM_PID=$(node_pid "$1") || give_up "$1 does not run"
    kill -9 "$VICTIM_PID"
}
seen_kill() {
    process_gone "$VICTIM_PID" && echo "pid $VICTIM_PID is gone"
}
heal_kill() {
    node_start "$1"
}

fault_stop() {
    VICTIM_PID=$(node_pid "$1") || give_up "$1 does not run"
    defer kill -CONT "$VICTIM_PID"
    kill -STOP "$VICTIM_PID"
}
seen_stop() {
    grep -q '^State:.T' "/proc/$VICTIM_PID/status" && echo "pid $VICTIM_PID is stopped"
}
heal_stop() {
    kill -CONT "$VICTIM_PID"
}

# The metadata server's process; the node is not asked for.
fault_mds() { fault_kill mds1; }
seen_mds() { seen_kill; }
heal_mds() { node_start mds1; }

# ---- network -----------------------------------------------------------------------------------

seen_dropped() {
    local packets
    packets=$(dropped_min)
    [ "$packets" -gt 0 ] && echo "each rule dropped $packets packets or more"
}

# Alone: nothing comes, nothing goes.
fault_cut() {
    drop from "$1"
    drop to "$1"
}
# It speaks and hears nothing.
fault_deaf() { drop to "$1"; }
# It hears and nobody hears it.
fault_mute() { drop from "$1"; }
# One way between two of three.
fault_oneway() { drop from "$1" to "$(next_node "$1")"; }
# Its peers and it do not hear each other; clients and the metadata server reach all.
fault_peers() {
    local other
    for other in "${NODES[@]}"; do
        [ "$other" != "$1" ] || continue
        drop from "$1" to "$other"
        drop from "$other" to "$1"
    done
}
# A third of what it sends and of what is sent to it.
fault_lossy() {
    drop from "$1" one_in 3
    drop to "$1" one_in 3
}
for NEMESIS in cut deaf mute oneway peers lossy; do
    eval "seen_$NEMESIS() { seen_dropped; }; heal_$NEMESIS() { drop_none; }"
done

next_node() {
    local at
    for at in "${!NODES[@]}"; do
        [ "${NODES[at]}" != "$1" ] || echo "${NODES[(at + 1) % ${#NODES[@]}]}"
    done
}

# ---- disks -------------------------------------------------------------------------------------

# No space is left where the node's store is a sparse file; what is written to a new volume needs some, of
# every node: what the load overwrites may have all its extents by now.
FULLS=0
fault_full() {
    local at=$DIR/data/$1
    FULLS=$((FULLS + 1))
    create_volume "fresh-$FULLS" --size 64MiB
    LOG_FROM=$(($(stat -c %s "$DIR/logs/$1.log") + 1))
    fallocate -l "$(df --output=avail -B1 "$at" | tail -n 1)" "$at/filler" 2>/dev/null || true
    dd if=/dev/zero of="$at/filler" bs=64K oflag=append conv=notrunc status=none 2>/dev/null || true
    timeout 30 "$OGEE" bench "fresh-$FULLS" --rw write --bs 64KiB --iodepth 4 --io-size 32MiB >"$TEST_DIR/fresh.log" 2>&1 &
    FRESH_PID=$!
}
# The store has met it: at the next write of an extent that it had not used before.
seen_full() {
    wait_for 40 log_says "$1" 'found no space' && echo "its store found no space"
}
log_says() {
    # Not a pipe: what ends before tail has said all would count as a failure.
    grep -q "$2" < <(tail -c "+$LOG_FROM" "$DIR/logs/$1.log")
}
# A store whose writes failed stays out until its process starts anew: that is an operator's step.
heal_full() {
    rm -f "$DIR/data/$1/filler"
    # It may wait for the full one; how it fares is not what is asked.
    kill "$FRESH_PID" 2>/dev/null || true
    wait "$FRESH_PID" 2>/dev/null || true
    wait_for 5 is_healthy && return 0
    fault_kill "$1"
    wait_for 10 process_gone "$VICTIM_PID" || give_up "$1 survives SIGKILL"
    node_start "$1"
}

# ---- tests -------------------------------------------------------------------------------------

# random_target   $PICK: a node, or three times out of four whoever leads then
random_target() {
    random_below 12
    PICK=${NODES[PICK]:-leader}
}

# choose_victim TARGET   $VICTIM: the node, or the leader of most of the volume's copysets
choose_victim() {
    VICTIM=$1
    [ "$1" != leader ] || VICTIM=$(volume_leader disk) || give_up "no leader: $("$OGEE" status 2>&1 | head -n 5)"
}

# chaos_kills CYCLES   SIGKILL and restart: nothing acknowledged is lost
chaos_kills() {
    local cycle victims
    chaos_up 8 3GiB 128MiB
    create_volume disk --size 1GiB
    RANDOM=$SEED
    load_start disk tasks=16 abandon=64
    for ((cycle = 1; cycle <= $1; cycle++)); do
        load_mark "cycle-$cycle"
        random_target
        choose_victim "$PICK"
        victims=("$VICTIM")
        # Now and then all of them: only what is on the disks is left.
        [ $((cycle % 8)) != 0 ] || victims=("${NODES[@]}")
        kill_and_start "${victims[@]}"
        # And now and then the same ones again, before they have caught up.
        random_below 4
        [ "$PICK" != 0 ] || kill_and_start "${victims[@]}"
        wait_healthy 60
        load_lives
    done
    load_mark rest
    sleep 2
    load_stop
    echo "   $1 kill cycles, longest wait of a client $(jq '[.windows[].gap_ms] | max' "$TEST_DIR/load.json") ms"
    copysets_agree
}

kill_and_start() {
    local name
    node_kill "$@"
    random_below 1500
    sleep_ms "$PICK"
    for name in "$@"; do node_start "$name"; done
}

# chaos_nemesis FAULTS   faults of every kind by a schedule that the seed makes
chaos_nemesis() {
    local at kind target for_ms how plan=() start
    for at in "${NODES[@]}"; do
        DIR=$TEST_DIR/cluster disk_for "$at" 2GiB
    done
    # A disk that was slow is soon well again: health is waited for.
    export OGEE_MDS_SERVER__SICK__WELL_AFTER_MS=5000
    chaos_up 8 1536MiB 128MiB
    create_volume disk --size 1GiB
    RANDOM=$SEED
    # Every kind, in turns that the seed shuffles.
    while [ ${#plan[@]} -lt "$1" ]; do
        for kind in $(printf '%s\n' "${NEMESES[@]}" | shuf --random-source=<(yes "$SEED-${#plan[@]}")); do
            random_target
            target=$PICK
            [ "$kind" != mds ] || target=mds1
            random_below 4000
            plan+=("$kind $target $((2000 + PICK))")
        done
    done
    plan=("${plan[@]:0:$1}")
    echo "   schedule of seed $SEED: ${plan[*]/%/ ms,}"
    load_start disk tasks=16 abandon=64
    start=$SECONDS
    for ((at = 0; at < $1; at++)); do
        read -r kind target for_ms <<<"${plan[at]}"
        choose_victim "$target"
        load_mark "$kind-$at"
        "fault_$kind" "$VICTIM"
        sleep_ms "$for_ms"
        how=$("seen_$kind" "$VICTIM") || give_up "$kind of $VICTIM did not happen: $how"
        "heal_$kind" "$VICTIM"
        echo "   $((SECONDS - start)) s: $kind $VICTIM for $for_ms ms: $how"
        wait_healthy 90
        load_lives
    done
    load_mark rest
    sleep 1
    load_stop
    echo "   longest waits, ms: $(jq -c '[.windows[] | select(.name | test("-")) | {(.name): .gap_ms}] | add' "$TEST_DIR/load.json")"
    copysets_agree
}

# chaos_gap FAULT ROUNDS   the longest wait of a client when a leader is killed, stopped or cut off,
# at default settings
chaos_gap() {
    local fault=$1 round bar=${GAP_BAR_MS[$1]} gaps
    chaos_up 8 3GiB 512MiB
    create_volume disk --size 1GiB
    RANDOM=$SEED
    # Sixteen streams over all copysets: whoever leads, some of them lose their leader.
    load_start disk tasks=0 streams=16 runs=64 wide=0
    sleep 3
    for ((round = 1; round <= $2; round++)); do
        choose_victim leader
        random_below 700
        sleep_ms "$PICK"
        load_mark "$fault-$round"
        "fault_$fault" "$VICTIM"
        sleep 4
        "seen_$fault" "$VICTIM" >/dev/null || give_up "$fault of $VICTIM did not happen"
        "heal_$fault" "$VICTIM"
        load_mark "healed-$round"
        wait_healthy 60
        load_lives
        sleep 1
    done
    load_stop
    gaps=$(jq -c --arg of "$fault-" '[.windows[] | select(.name | startswith($of)) | .gap_ms] | sort' "$TEST_DIR/load.json")
    echo "   $fault: longest wait in $2 rounds, ms: p50 $(jq '.[(length - 1) / 2 | floor]' <<<"$gaps"), p100 $(jq max <<<"$gaps") (bar $bar); all $gaps; healing cost $(jq '[.windows[] | select(.name | startswith("healed")) | .gap_ms] | max' "$TEST_DIR/load.json"); none: $(jq '.windows[0].gap_ms' "$TEST_DIR/load.json")"
    [ "$(jq length <<<"$gaps")" = "$2" ] || give_up "not every round was measured"
    [ "$(jq max <<<"$gaps")" -le "$bar" ] || give_up "$fault: p100 $(jq max <<<"$gaps") ms, bar $bar ms"
    copysets_agree
}

# chaos_flips COUNT   bits flipped in leaders' stores under load: each block is read right, and is right on
# the device afterwards
chaos_flips() {
    local batch=100 blocks=4096 rounds round node before copysets copyset total=0 again=0
    rounds=$((($1 + batch - 1) / batch))
    chaos_up 8 3GiB 128MiB
    create_volume disk --size 512MiB
    create_volume victim --size 64MiB
    RANDOM=$SEED
    export_start victim
    export -f leads lead_all
    export OGEE
    flip_blocks fill --uri "$URI" --blocks "$blocks" >/dev/null || give_up "fill"
    wait_for 60 all_written_back || give_up "blocks stay in the log"
    load_start disk tasks=8 pause_us=4000
    for ((round = 1; round <= rounds; round++)); do
        random_below ${#NODES[@]}
        node=${NODES[PICK]}
        copysets=$("$OGEE" volume locate victim -o json | jq -r '[.chunks[].copyset] | unique[]')
        for copyset in $copysets; do
            wait_for 20 leads "$copyset" "$node" || give_up "$node does not take over copyset $copyset"
        done
        sleep 1.5
        before=$(checksum_errors "$node")
        flip_blocks flip --uri "$URI" --store "$DIR/data/$node/0.store" --blocks "$blocks" --count "$batch" --seed "$((SEED + round))" \
            --used "$TEST_DIR/used" --lead "lead_all $node ${copysets//$'\n'/ }" >"$TEST_DIR/flips.json" 2>"$TEST_DIR/flips.log" ||
            give_up "round $round on $node: $(cat "$TEST_DIR/flips.json" "$TEST_DIR/flips.log")"
        # Daemons publish their counters once a second.
        wait_for 10 has_counted "$node" $((before + batch)) ||
            give_up "$node counted $(($(checksum_errors "$node") - before)) of $batch damaged blocks: $(cat "$TEST_DIR/flips.json")"
        total=$((total + $(jq .repaired "$TEST_DIR/flips.json")))
        again=$((again + $(jq .led_again "$TEST_DIR/flips.json")))
        load_lives
    done
    load_stop
    echo "   $total bits flipped in leaders' stores: all read right, all repaired from other replicas ($again were first served by another leader)"
    [ "$total" -ge "$1" ] || give_up "only $total flips"
    copysets_agree
}

# The node leads the copyset; it is asked to, if it does not.
leads() {
    "$OGEE" copyset show "$1" -o json | jq -e --arg name "$2" 'any(.replicas[]; .leader and .chunkserver == $name)' && return 0
    "$OGEE" copyset transfer-leader "$1" --to "$2" || true
    sleep 0.5
    return 1
}

# lead_all NODE COPYSET...   for a shell of its own
lead_all() {
    local node=$1 copyset try
    for copyset in "${@:2}"; do
        for ((try = 0; ; try++)); do
            leads "$copyset" "$node" && break
            [ "$try" -lt 40 ] || return 1
        done
    done
}

has_counted() {
    [ "$(checksum_errors "$1")" -ge "$2" ]
}

checksum_errors() {
    metrics_of "$1" | awk '/^ogee_chunkserver_checksum_errors_total/ { sum += $2; seen = 1 } END { if (!seen) exit 1; print sum + 0 }' ||
        give_up "no counter of checksum errors"
}
