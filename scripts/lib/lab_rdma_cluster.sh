#!/bin/busybox sh
# shellcheck shell=dash
# What a lab guest runs for the RDMA cluster tests in scripts/test.d/lab.sh: chunkservers on rxe, and in the first
# guest a metadata server and the load.
#
#   lab_rdma_cluster.sh TRANSPORT SECONDS LAYOUT SIZE...
#
#   LAYOUT   which chunkservers each guest has: 123, or 12:3 and 1:23 for two guests
#   SIZE     a volume and a verified load for each request size
#
# EXAMPLES names programs that overwrite a volume and read it back: they run when the loads have ended. DISKS=1: then a volume is
# the disk of a VM, twice, with its memory registered and not.
#
# In one guest the leader is killed under load, and started again. In two guests the host kills the second one; files in
# /results say how far this one is.
set -eu
transport=$1 seconds=$2 layout=$3
shift 3
DIR=/data/cluster
MDS=10.9.0.1:7100
export OGEE_MDS=$MDS
case $layout in
123) HEARTBEAT_MS=600 ;;
*) HEARTBEAT_MS=1500 ;;
esac
# What is not 10.9.0.N is TCP of nobody's data.
case $LAB_GUEST in
1) mine=${layout%%:*} ;;
*) mine=${layout#*:} ;;
esac

# reached NAME   tells the host, and the other guest
reached() {
    : >"/results/$1"
}

awaited() {
    until [ -e "/results/$1" ]; do sleep 0.3; done
}

# guest_of N   where chunkserver N is
guest_of() {
    case ${layout%%:*} in
    *"$1"*) echo 1 ;;
    *) echo 2 ;;
    esac
}

chunkserver_conf() {
    cat >"$DIR/conf/cs$1.toml" <<TEXT
name = "cs$1"
zone = "zone$1"
server = "lab$1"
listen = ["10.9.0.$(guest_of "$1"):700$1"]
transport = "$transport"
mds = ["$MDS"]
metrics = "127.0.0.1:720$1"

# An emulated processor is ten times slower, and two guests share what one has.
[raft]
heartbeat_ms = $HEARTBEAT_MS
election_min_ms = $((5 * HEARTBEAT_MS))
election_max_ms = $((8 * HEARTBEAT_MS))

[[device]]
path = "$DIR/data/cs$1.store"
create = "192MiB"
log_size = "48MiB"
TEXT
}

configure() {
    mkdir -p "$DIR/conf" "$DIR/data" "$DIR/logs" "$DIR/pids"
    for number in $(echo "$mine" | sed 's/./& /g'); do chunkserver_conf "$number"; done
    echo "export OGEE_MDS=$MDS" >"$DIR/ogee.env"
    [ "$LAB_GUEST" = 1 ] || return 0
    cat >"$DIR/conf/mds1.toml" <<TEXT
data_dir = "$DIR/data/mds1"
listen = "$MDS"
metrics = "127.0.0.1:7200"
cluster = "lab"
offline_ms = 15000
TEXT
}

# all_start   what this guest has
all_start() {
    for conf in "$DIR"/conf/mds*.toml "$DIR"/conf/cs*.toml; do
        [ -e "$conf" ] || continue
        name=$(basename "$conf" .toml)
        ogee dev start "$name" --dir "$DIR" || failed "$name does not start"
    done
}

failed() {
    echo "FAILED: $*"
    tail -n 12 "$DIR"/logs/*.log | cut -c1-300
    mkdir -p /results/logs
    cp "$DIR"/logs/*.log /results/logs/ 2>/dev/null || true
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

# counters NAME   what the kernel and the chunkservers of this guest have counted
counters() {
    {
        awk '$1 == "IpExt:" && !names { split($0, name); names = 1; next }
            $1 == "IpExt:" { for (at = 2; at <= NF; at++) if (name[at] == "OutOctets") print "ip_out_bytes", $at }' /proc/net/netstat
        awk '$1 == "TcpExt:" && !names { split($0, name); names = 1; next }
            $1 == "TcpExt:" { for (at = 2; at <= NF; at++) if (name[at] == "TCPOrigDataSent") print "tcp_segments", $at }' /proc/net/netstat
        for file in /sys/class/infiniband/rxe0/ports/1/hw_counters/*; do
            echo "rxe_$(basename "$file") $(cat "$file")"
        done
        for number in $(echo "$mine" | sed 's/./& /g'); do
            wget -q -O - "http://127.0.0.1:720$number/metrics" |
                sed -n "s/^ogee_chunkserver_\([a-z_]*\)_total{shard=\"0\"} \([0-9]*\)\$/cs${number}_\1 \2/p"
        done
    } >"/results/$1"
}

# loads_start   a verified load of each size
loads_start() {
    LOADS=''
    for size in "$@"; do
        ogee bench "disk$size" --rw randrw --rwmixread 50 --bs "$size" --iodepth 4 --runtime "$seconds" --verify -o json \
            >"/results/load$size.json" 2>"/results/load$size.log" &
        LOADS="$LOADS $!"
    done
}

loads_end() {
    for load in $LOADS; do
        wait "$load" || failed "a load ended with $?: $(tail -n 3 /results/load*.log)"
    done
}

# Nothing is answered with two of three gone: what should have ended by now has not.
loads_stall() {
    sleep "$seconds"
    for load in $LOADS; do
        kill -0 "$load" 2>/dev/null || failed "a load ended although most replicas are gone"
    done
}

# examples_run   those of docs/client.md, one after the other
examples_run() {
    [ -n "${EXAMPLES:-}" ] || return 0
    ogee volume create examples --size 32MiB
    counters before-examples
    for program in $EXAMPLES; do
        "$program" examples >"/results/$program.log" 2>&1 || failed "$program: $(tail -n 5 "/results/$program.log")"
    done
    counters after-examples
    # On a busy host a replica may have fallen behind.
    within 120 ogee status || failed "not healthy after the examples: $(ogee status)"
}

# disk_run NAME OPTION...   a verified load on a volume as a VM has it, with a native driver in the guest's place
disk_run() {
    local name=$1 server
    shift
    ogee export vhost-user disk --socket-dir /tmp/disk --transport "$transport" "$@" 2>"/results/$name.log" &
    server=$!
    within 60 test -S /tmp/disk/disk.sock || failed "$name: no socket: $(tail -n 3 "/results/$name.log")"
    counters "before-$name"
    ogee bench vhost-user:/tmp/disk/disk.sock --rw randrw --rwmixread 70 --bs 128k --iodepth 4 --numjobs 2 --runtime 15 --verify -o json \
        >"/results/$name.json" 2>"/results/$name.bench" || failed "$name: the load ended with $?: $(tail -n 3 "/results/$name.bench")"
    counters "after-$name"
    kill "$server"
    wait "$server" || failed "$name: the server ended with $?: $(tail -n 3 "/results/$name.log")"
}

disks_run() {
    [ -n "${DISKS:-}" ] || return 0
    ogee volume create disk --size 64MiB
    mkdir -m 0700 /tmp/disk
    disk_run disk-registered
    disk_run disk-copied --no-registration
    within 120 ogee status || failed "not healthy after the disks: $(ogee status)"
}

leader() {
    ogee volume locate "$1" -o json | jq -er '
        [.chunks[] | {copyset, leader} | select(.leader != null)] | unique
        | group_by(.leader) | max_by(length) | .[0].leader'
}

mkdir -p /data
mount -t ext4 /dev/vda /data

if [ "$LAB_GUEST" = 2 ]; then
    if [ -d "$DIR" ]; then
        awaited return
    else
        configure
        awaited mds
    fi
    all_start
    awaited over
    exit 0
fi

configure
all_start
reached mds
within 120 three_online || failed "not three chunkservers: $(ogee server ls -o json)"
ogee pool create default --replicas 3 --copysets 4
within 120 pool_ready || failed "the copysets have no leaders: $(ogee status)"
for size in "$@"; do ogee volume create "disk$size" --size 32MiB; done
within 120 ogee status || failed "not healthy: $(ogee status)"
counters before
# shellcheck disable=SC2086 # one word a size
loads_start "$@"
if [ "$layout" = 123 ]; then
    sleep $((seconds / 3))
    counters under-load
    victim=$(leader "disk$1") || failed "nobody leads disk$1"
    echo "killing $victim"
    kill -9 "$(cat "$DIR/pids/$victim.pid")"
    sleep $((seconds / 4))
    ogee dev start "$victim" --dir "$DIR" || failed "$victim does not start again"
else
    reached loaded
    awaited lost
    case $mine in
    12) loads_end ;;
    *) loads_stall ;;
    esac
    reached return
fi
[ "$layout" = 12:3 ] || loads_end
counters after
within 120 ogee status || failed "not healthy after it: $(ogee status)"
examples_run
disks_run
ogee copyset check -o json >/results/check.json || failed "replicas differ: $(cat /results/check.json)"
mkdir -p /results/logs
cp "$DIR"/logs/*.log /results/logs/
reached over
ogee dev down --dir "$DIR"
