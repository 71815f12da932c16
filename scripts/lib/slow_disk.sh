# shellcheck shell=bash
# A disk of its own for a node, and what makes it limp: cgroup v1's throttle on a loop device. Sourced after cluster.sh.
# As a fault of nemesis.sh: fault_slow NODE, seen_slow NODE, heal_slow NODE.

# disk_for NODE SIZE   a file system of its own on a loop device, for the node's store
disk_for() {
    local at=$DIR/data/$1 loop
    [ -c /dev/loop-control ] || give_skip "no loop devices"
    mkdir -p "$at"
    truncate -s "$2" "$TEST_DIR/$1.img"
    loop=$(losetup -f --show --direct-io=on "$TEST_DIR/$1.img") || give_skip "no loop device can be made"
    defer losetup -d "$loop"
    echo "$loop" >"$TEST_DIR/$1.loop"
    mkfs.ext4 -q -F -m 0 "$loop"
    mount "$loop" "$at"
    defer umount -l "$at"
}

BLKIO=/sys/fs/cgroup/blkio
SLOW_IOPS=20

# The device of the node's disk (disk_for), as MAJOR:MINOR.
disk_number() {
    lsblk -ndo MAJ:MIN "$(cat "$TEST_DIR/$1.loop")" | tr -d ' '
}

# Writes that the throttled group has done on the node's disk.
slow_writes() {
    awk -v at="$(disk_number "$1")" '$1 == at && $2 == "Write" { print $3; seen = 1 } END { if (!seen) print 0 }' "$SLOW_GROUP/blkio.throttle.io_serviced"
}

fault_slow() {
    SLOW_GROUP=$BLKIO/ogee-slow-$$
    VICTIM_PID=$(node_pid "$1") || give_up "$1 does not run"
    mkdir -p "$SLOW_GROUP"
    defer slow_end
    echo "$(disk_number "$1") $SLOW_IOPS" >"$SLOW_GROUP/blkio.throttle.write_iops_device"
    echo "$VICTIM_PID" >"$SLOW_GROUP/cgroup.procs"
    # What was under way passes unhindered.
    sleep_ms 500
    SLOW_FROM=$(slow_writes "$1") SLOW_SINCE=$EPOCHREALTIME
}
# It wrote as much as it was let, and no more: give or take a half (split writes), and two seconds' worth that
# may be let through at once. Without the throttle it would be many hundreds a second.
seen_slow() {
    local done_ms writes
    done_ms=$(((${EPOCHREALTIME/./} - ${SLOW_SINCE/./}) / 1000))
    writes=$(($(slow_writes "$1") - SLOW_FROM))
    echo "$writes writes in $done_ms ms"
    [ $((writes * 2000)) -ge $((SLOW_IOPS * done_ms)) ] && [ $((writes * 2000)) -le $((3 * SLOW_IOPS * done_ms + 4000 * SLOW_IOPS)) ]
}
heal_slow() {
    echo "$(disk_number "$1") 0" >"$SLOW_GROUP/blkio.throttle.write_iops_device"
    slow_end
}
slow_end() {
    [ -d "$SLOW_GROUP" ] || return 0
    cgroup_end "$SLOW_GROUP"
}
