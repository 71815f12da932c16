#!/bin/busybox sh
# shellcheck shell=dash
# What a lab guest runs for the NVMe cluster test in scripts/test.d/lab.sh, behind lab_spdk.sh: three chunkservers, each on a
# controller of its own, and a metadata server; a verified load, the leader killed under it and started again; and another
# load, under which the kernel resets the controller of one that leads. The third drive is named by its serial number alone.
#
#   lab_spdk_cluster.sh SECONDS
set -eu
seconds=$1
DIR=/tmp/cluster
MDS=127.0.0.1:7100
export OGEE_MDS=$MDS

failed() {
    echo "FAILED: $*"
    tail -n 12 "$DIR"/logs/*.log | cut -c1-300
    exit 10
}

# within SECONDS COMMAND...
within() {
    end=$(($(cut -d. -f1 /proc/uptime) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt "$end" ] || return 1
        sleep 0.5
    done
}

three_online() {
    [ "$(ogee server ls -o json | jq '[.servers[] | select(.online)] | length')" = 3 ]
}

pool_ready() {
    ogee status -o json >/tmp/status.json || [ $? = 3 ]
    jq -e '.copysets.total > 0 and .copysets.ready == .copysets.total' /tmp/status.json
}

leader() {
    ogee volume locate "$1" -o json | jq -er '
        [.chunks[] | {copyset, leader} | select(.leader != null)] | unique
        | group_by(.leader) | max_by(length) | .[0].leader'
}

# What a device says it is, by its chunkserver's name.
device_state() {
    ogee device ls -o json | jq -r --arg name "$1" '.devices[] | select(.chunkserver == $name).state'
}

is_failed() {
    [ "$(device_state "$1")" = failed ]
}

# agree FILE   whether all replicas are the same. One that does not answer in time, on an emulated processor, is asked again; one that
# differs is not.
agree() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        ! ogee copyset check -o json >"$1" || return 0
        jq -e '[.copysets[].differences[] | select(endswith("is unreachable") | not)] == []' "$1" >/dev/null || return 1
        sleep 3
    done
    return 1
}

ip link set lo up
mkdir -p "$DIR/conf" "$DIR/data" "$DIR/logs" "$DIR/pids"
echo "export OGEE_MDS=$MDS" >"$DIR/ogee.env"
cat >"$DIR/conf/mds1.toml" <<TEXT
data_dir = "$DIR/data/mds1"
listen = "$MDS"
cluster = "lab"
offline_ms = 15000
TEXT
number=0
for address in $OGEE_NVME_PCI; do
    number=$((number + 1))
    # An emulated processor is ten times slower.
    cat >"$DIR/conf/cs$number.toml" <<TEXT
name = "cs$number"
zone = "zone$number"
server = "lab$number"
listen = ["127.0.0.1:700$number"]
transport = "tcp"
mds = ["$MDS"]

[raft]
heartbeat_ms = 1000
election_min_ms = 5000
election_max_ms = 8000

[nvme]
records = "$DIR/drives.toml"

[[device]]
$([ "$number" = 3 ] || echo "pci = \"$address\"")
serial = "ogee$number"
log_size = "48MiB"
TEXT
    # As `ogee device prepare` leaves it.
    printf '[[drive]]\nserial = "ogee%s"\npci = "%s"\ndriver = "uio_pci_generic"\n' "$number" "$address" >>"$DIR/drives.toml"
    echo "$address" >"$DIR/cs$number.pci"
done
sed -i 's/^mds = .*/&\nmetrics = "127.0.0.1:7203"/' "$DIR/conf/cs3.toml"
[ "$number" = 3 ] || failed "$number controllers"
for name in mds1 cs1 cs2 cs3; do ogee dev start "$name" --dir "$DIR" || failed "$name does not start"; done
within 120 three_online || failed "not three chunkservers: $(ogee server ls -o json)"
ogee pool create default --replicas 3 --copysets 4
within 120 pool_ready || failed "the copysets have no leaders: $(ogee status)"
ogee volume create disk --size 32MiB
within 120 ogee status || failed "not healthy: $(ogee status)"
store=$(ogee device ls -o json | jq -er '.devices[] | select(.chunkserver == "cs3").store')
within 120 ogee device health "$store" || failed "no health page of $store: $(ogee device health "$store")"
ogee device health "$store" >/results/health.txt
wget -qO- http://127.0.0.1:7203/metrics | grep '^ogee_chunkserver_nvme_' >/results/metrics.txt || failed "no metrics of the drive"
ogee bench disk --rw randrw --rwmixread 50 --bs 4k --iodepth 4 --runtime "$seconds" --verify -o json >/results/load.json 2>/results/load.log &
load=$!
sleep $((seconds / 3))
victim=$(leader disk) || failed "nobody leads disk"
echo "killing $victim"
kill -9 "$(cat "$DIR/pids/$victim.pid")"
sleep $((seconds / 4))
ogee dev start "$victim" --dir "$DIR" || failed "$victim does not start again"
wait "$load" || failed "the load ended with $?: $(tail -n 3 /results/load.log)"
within 120 ogee status || failed "not healthy after it: $(ogee status)"
agree /results/check.json || failed "replicas differ: $(cat /results/check.json)"

ogee bench disk --rw randrw --rwmixread 50 --bs 4k --iodepth 4 --runtime "$seconds" --verify -o json >/results/reset.json 2>/results/reset.log &
load=$!
sleep $((seconds / 3))
victim=$(leader disk) || failed "nobody leads disk"
echo "resetting the controller of $victim"
echo 1 >"/sys/bus/pci/devices/$(cat "$DIR/$victim.pci")/reset"
within 120 is_failed "$victim" || failed "the store of $victim is $(device_state "$victim")"
grep -q 'failed or was reset' "$DIR/logs/$victim.log" || failed "$victim does not say why"
wait "$load" || failed "the load under the reset ended with $?: $(tail -n 3 /results/reset.log)"
is_failed "$victim" || failed "the store of $victim came back by itself: $(device_state "$victim")"
# It is used again when its process starts again.
kill -9 "$(cat "$DIR/pids/$victim.pid")"
ogee dev start "$victim" --dir "$DIR" || failed "$victim does not start again"
within 180 ogee status || failed "not healthy after the reset: $(ogee status)"
agree /results/check2.json || failed "replicas differ after the reset: $(cat /results/check2.json)"
grep -h 'device opened' "$DIR"/logs/cs*.log | tail -n 4
ogee dev down --dir "$DIR"
