#!/bin/sh
# What a lab guest runs until its power goes: a cluster on its disks, and a writer on that cluster.
# Copied into the guest by scripts/test.d/lab.sh.   lab_power.sh MODE FIRST SECONDS
#
#   record       vda … vdd: three stores and the metadata server's file system, recorded by the host;
#                acknowledgements go to the port "acks"
#   log-writes   vda: one device that holds all four (/results/layout); vdb: the log of dm-log-writes,
#                with marks that say how much had been acknowledged
#   flakey       vda as before; after a while it acknowledges writes and drops them
#
# /results/conf holds the cluster's configuration; /results/acks, if it is there, what must be read back
# before anything is written; /results/recovered then says that it was.
set -eu
mode=$1 first=$2 seconds=$3
layout=/results/layout
mkdir -p /data /dev/lab /tmp/cluster/logs

# linear DEVICE   the four disks as parts of one device
linear() {
    while read -r name start length; do
        dmsetup create "$name" --table "0 $((length / 512)) linear $1 $((start / 512))"
        ln -s "/dev/mapper/$name" "/dev/lab/$name"
    done <$layout
}

# dmsetup speaks to udev, which is not here.
export DM_DISABLE_UDEV=1
sectors=$(cat /sys/block/vda/size)
case $mode in
record)
    ln -s /dev/vda /dev/lab/cs1
    ln -s /dev/vdb /dev/lab/cs2
    ln -s /dev/vdc /dev/lab/cs3
    ln -s /dev/vdd /dev/lab/mds
    acks=/dev/virtio-ports/acks
    ;;
log-writes)
    dmsetup create logged --table "0 $sectors log-writes /dev/vda /dev/vdb"
    linear /dev/mapper/logged
    acks=/tmp/acks
    ;;
flakey)
    dmsetup create logged --table "0 $sectors flakey /dev/vda 0 3600 0"
    linear /dev/mapper/logged
    acks=/tmp/acks
    ;;
esac

mount -t ext4 /dev/lab/mds /data
cp -r /results/conf /tmp/cluster/conf
OGEE_MDS=$(sed -n 's/^listen = "\(.*\)"$/\1/p' /tmp/cluster/conf/mds1.toml)
export OGEE_MDS
echo "export OGEE_MDS=$OGEE_MDS" >/tmp/cluster/ogee.env

# Where the threads of each of our processes are: what does not start is seldom seen twice.
tell_threads() {
    for task in /proc/[0-9]*/task/*; do
        case $(tr '\0' ' ' <"$task/cmdline") in
        /usr/bin/ogee*) echo "lab: $task $(cat "$task/comm") $(sed -n 's/^State:\t//p' "$task/status"): $(head -n 5 "$task/stack" | tr '\n' ' ')" ;;
        esac
    done
}

ogee dev up --dir /tmp/cluster || {
    tail -n 5 /tmp/cluster/logs/*
    tell_threads
    exit 10
}
if [ -e /results/acks ]; then
    power_cut verify "$OGEE_MDS" disk /results/acks /results/found || exit 11
    grep -l 'damage' /tmp/cluster/logs/*.log && exit 12
    : >/results/recovered
fi

[ "$seconds" -gt 0 ] || exit 0
: >/tmp/acks
power_cut write "$OGEE_MDS" disk "$acks" "$first" "$seconds" &
writer=$!
case $mode in
log-writes)
    # The length is read before the mark is set: so much was acknowledged by then.
    while kill -0 $writer 2>/dev/null; do
        dmsetup message logged 0 mark "acks:$(wc -c </tmp/acks)"
        sleep 0.05
    done
    cp /tmp/acks /results/acks.written
    ;;
flakey)
    sleep "$((seconds / 2))"
    # Suspending waits for what is on its way; what was acknowledged before is there.
    cp /tmp/acks /results/acks.written
    dmsetup suspend --nolockfs --noflush logged
    dmsetup reload logged --table "0 $sectors flakey /dev/vda 0 0 3600 1 drop_writes"
    dmsetup resume logged
    : >/results/dropping
    ;;
esac
wait $writer
