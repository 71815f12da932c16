# shellcheck shell=bash
# Devices that limp, and devices that are replaced. Sourced after slow_disk.sh, by the core tests.

# How much slower writes may be 5 s after a device has begun to limp.
LIMPING_RATIO_MAX=2

# test_limping   a device is let do 20 writes a second: its leaders go, writers are as fast as before 5 s later, nobody
# moves leaders back, and the device is taken back when it is well
test_limping() {
    local node load before after
    need_root
    for node in cs1 cs2 cs3; do
        DIR=$TEST_DIR/cluster disk_for "$node" 2GiB
        truncate -s 1536MiB "$TEST_DIR/cluster/data/$node/0.store"
        ln -s "$node/0.store" "$TEST_DIR/cluster/data/$node-0.store"
    done
    export OGEE_MDS_SERVER__SICK__WELL_AFTER_MS=5000 OGEE_MDS_SERVER__HEAL__BALANCE_AFTER_MS=2000
    cluster_up --copysets 8 --store-size 1536MiB --log-size 128MiB
    create_volume disk --size 1GiB
    create_volume probe --size 256MiB
    # Something has to be written for anything to be seen.
    timeout 120 "$OGEE" bench disk --rw randwrite --bs 4KiB --iodepth 4 --rate-iops 150 --runtime 60 -o json >"$TEST_DIR/load.json" 2>"$TEST_DIR/load.log" &
    load=$!
    defer end_process "$load"
    sleep 2
    bench_json probe before --rw randwrite --bs 4KiB --iodepth 2 --rate-iops 100 --runtime 8
    VICTIM=$(volume_leader disk) || give_up "no leader"
    echo "   $VICTIM limps; it leads $(leads_now "$VICTIM") of 8"
    fault_slow "$VICTIM"
    # What fault_slow has waited is part of it.
    sleep_ms 4500
    bench_json probe after --rw randwrite --bs 4KiB --iodepth 2 --rate-iops 100 --runtime 8
    seen_slow "$VICTIM" >"$TEST_DIR/slow" || give_up "it was not slow: $(cat "$TEST_DIR/slow")"
    before=$(p99_us before) after=$(p99_us after)
    echo "   p99 of writes: $before us before, $after us from 5 s after it began ($(cat "$TEST_DIR/slow"))"
    "$OGEE" device ls || true
    has_code OGEE-1025 || give_up "not said: $("$OGEE" status)"
    [ "$(leads_now "$VICTIM")" = 0 ] || give_up "$VICTIM leads $(leads_now "$VICTIM"): $("$OGEE" job ls)"
    # Not a microsecond's difference: a loaded machine makes that by itself.
    [ "$after" -le $((LIMPING_RATIO_MAX * before)) ] || [ "$after" -le 5000 ] || give_up "p99 $after us, $before us before"
    heal_slow "$VICTIM"
    wait_for 60 is_not_limping "$VICTIM" || give_up "not taken back: $("$OGEE" device ls)"
    wait "$load" || give_up "the load: $(tail -n 3 "$TEST_DIR/load.log")"
    echo "   longest write of all: $(jq '.jobs[0].write.lat_ns.max / 1000000 | floor' "$TEST_DIR/load.json") ms; errors: $(jq '.jobs[0].error' "$TEST_DIR/load.json")"
    [ "$(jq '.jobs[0].error' "$TEST_DIR/load.json")" = 0 ] || give_up "the load saw errors"
    wait_healthy 60
    copysets_agree
}

leads_now() {
    "$OGEE" server ls -o json | jq --arg name "$1" '.servers[] | select(.name == $name) | .leaders'
}

p99_us() {
    jq '.jobs[0].write.clat_ns.percentile["99.000000"] / 1000 | floor' "$TEST_DIR/$1.json"
}

has_code() {
    # Not healthy: that is what is asked.
    "$OGEE" status -o json >"$TEST_DIR/codes.json" || [ $? = 3 ] || return 1
    jq -e --arg code "$1" 'any(.codes[]; .code == $code)' "$TEST_DIR/codes.json"
}

is_not_limping() {
    "$OGEE" device ls -o json | jq -e --arg name "$1" 'all(.devices[]; .chunkserver != $name or .sick == "")'
}

# A device's replicas all go to another one of the same chunkserver, under a verified load, although the metadata server
# is killed meanwhile, and the command comes three times.
test_device_replace() {
    local load old new
    export OGEE_MDS_SERVER__HEARTBEAT_MS=500
    cluster_up --shards 2 --copysets 6 --store-size 1GiB --log-size 64MiB
    create_volume disk --size 256MiB
    old=$(device_of cs1 0) new=$(device_of cs1 1)
    [ "$(replicas_of "$old")" -gt 0 ] || give_up "nothing is on the old one"
    writer_begins 4
    sleep 2
    ! "$OGEE" device replace "$old" "$(device_of cs2 0)" >"$TEST_DIR/refused" 2>&1 || give_up "another zone was taken"
    grep -q 'in its zone' "$TEST_DIR/refused" || give_up "the zone is not named: $(cat "$TEST_DIR/refused")"
    "$OGEE" device replace "$old" "$new" >"$TEST_DIR/replace.log" 2>&1 || give_up "device replace: $(cat "$TEST_DIR/replace.log")"
    wait_for 20 jobs_run drain || give_up "nothing moves: $("$OGEE" job ls)"
    node_kill mds1
    node_start mds1
    wait_for 30 "$OGEE" device replace "$old" "$new" || give_up "not a second time: $("$OGEE" device replace "$old" "$new" 2>&1)"
    wait_for 150 device_is_empty "$old" || give_up "not empty: $("$OGEE" device ls) $("$OGEE" job ls)"
    writer_ends "$load"
    "$OGEE" device replace "$old" "$new" >"$TEST_DIR/replace.log" 2>&1 || give_up "device replace: $(cat "$TEST_DIR/replace.log")"
    grep -q 'it is empty' "$TEST_DIR/replace.log" || give_up "what to do next is not said: $(cat "$TEST_DIR/replace.log")"
    echo "   $(replicas_of "$new") replicas on the new one; under load: $(jq -c '{acked, wait_max_ms}' "$TEST_DIR/load.json")"
    wait_healthy 60
    copysets_agree
}

device_of() {
    "$OGEE" device ls -o json | jq -r --arg name "$1" --argjson shard "$2" '.devices[] | select(.chunkserver == $name and .shard == $shard) | .store'
}

replicas_of() {
    "$OGEE" device ls -o json | jq --arg store "$1" '.devices[] | select(.store == $store) | .replicas'
}

device_is_empty() {
    "$OGEE" device ls -o json | jq -e --arg store "$1" 'any(.devices[]; .store == $store and .mark == "empty")'
}

# A device answers EIO to everything, under a verified load: its loop device ends before all that it holds. Nobody sees
# an error or waits for long, and its chunkserver goes on with its other device.
test_eio_device() {
    local load loop pid longest
    need_root
    [ -c /dev/loop-control ] || give_skip "no loop devices"
    mkdir -p "$TEST_DIR/cluster/data"
    truncate -s 1GiB "$TEST_DIR/disk.img"
    loop=$(losetup -f --show --direct-io=on "$TEST_DIR/disk.img") || give_skip "no loop device can be made"
    defer losetup -d "$loop"
    ln -s "$loop" "$TEST_DIR/cluster/data/cs1-0.store"
    cluster_up --shards 2 --copysets 8 --store-size 1GiB --log-size 64MiB
    create_volume disk --size 256MiB
    "$OGEE" bench disk --rw randrw --bs 4KiB --iodepth 4 --rate-iops 150 --runtime 20 --verify -o json >"$TEST_DIR/load.json" 2>"$TEST_DIR/load.log" &
    load=$!
    defer end_process "$load"
    sleep 5
    pid=$(node_pid cs1) || give_up "cs1 does not run"
    [ "$(replicas_of "$(device_of cs1 0)")" -gt 0 ] || give_up "nothing is on the device"
    truncate -s 64KiB "$TEST_DIR/disk.img"
    losetup -c "$loop"
    wait_for 10 device_failed cs1 0 || give_up "not said to have failed: $("$OGEE" device ls)"
    has_code OGEE-1005 >/dev/null || give_up "not said: $("$OGEE" status)"
    wait "$load" || give_up "the load: $(tail -n 3 "$TEST_DIR/load.log")"
    [ "$(jq '.jobs[0].error' "$TEST_DIR/load.json")" = 0 ] || give_up "the load saw errors"
    longest=$(jq '[.jobs[0].write.lat_ns.max, .jobs[0].read.lat_ns.max] | max / 1000000 | floor' "$TEST_DIR/load.json")
    echo "   EIO from all of a device: no error, longest request $longest ms; $("$OGEE" device ls -o json | jq -c '[.devices[] | select(.chunkserver == "cs1") | {shard, state, failures}]')"
    [ "$longest" -le 2000 ] || give_up "a request took $longest ms"
    [ "$(node_pid cs1)" = "$pid" ] || give_up "cs1 did not live"
    "$OGEE" device ls -o json | jq -e 'any(.devices[]; .chunkserver == "cs1" and .shard == 1 and .state == "ok")' >/dev/null || give_up "its other device: $("$OGEE" device ls)"
    "$OGEE" copyset ls -o json | jq -e --arg store "$(device_of cs1 1)" 'all(.copysets[].replicas[] | select(.store == $store); .state == "ok")' >/dev/null || give_up "replicas of its other device: $("$OGEE" copyset ls)"
}

# device_failed CHUNKSERVER SHARD
device_failed() {
    "$OGEE" device ls -o json | jq -e --arg name "$1" --argjson shard "$2" 'any(.devices[]; .chunkserver == $name and .shard == $shard and .state == "failed")'
}
