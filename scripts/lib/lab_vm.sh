#!/bin/busybox sh
# shellcheck shell=dash
# What a guest does with the Ogee volume that is its disk. Phases, told apart by files in /results that
# the host waits for or makes: scripts/test.d/vhost.sh.
#   lab_vm.sh make     partitions it, makes a file system, writes under faults, hashes
#   lab_vm.sh check    the next boot: the same contents; the volume grows; files are discarded
set -eu
DISK=/dev/vda

# reached NAME   tells the host
reached() {
    : >"/results/$1"
}

# awaited NAME   waits for the host
awaited() {
    until [ -e "/results/$1" ]; do sleep 0.2; done
}

hashes() {
    (cd /mnt && find . -type f | sort | xargs md5sum)
}

# No request of the disk failed, and the file system noticed nothing.
clean() {
    if dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|Buffer I/O|blk_update_request|hung task'; then
        echo "the kernel saw an error" >&2
        exit 1
    fi
}

make() {
    [ "$(cat /sys/block/vda/queue/logical_block_size)" = 512 ]
    [ "$(cat /sys/block/vda/queue/physical_block_size)" = 4096 ]
    [ "$(cat /sys/block/vda/queue/discard_max_bytes)" -gt 0 ]
    [ "$(cat /sys/block/vda/serial)" != "" ]
    # A label of its own, with one partition from 1 MiB on.
    echo 'start=2048, type=83' | sfdisk -q "$DISK"
    sleep 1
    # By its path: the shell has a smaller one of its own.
    "$(find /sbin /usr/sbin -name mke2fs -type f | head -n 1)" -q -t ext4 "${DISK}1"
    mkdir -p /mnt
    mount -t ext4 "${DISK}1" /mnt
    awaited writing
    n=0
    # Under faults: as long as the host makes them.
    until [ -e /results/quiet ]; do
        n=$((n + 1))
        dd if=/dev/urandom of="/mnt/f$((n % 40))" bs=64k count=$((n % 7 + 1)) conv=fsync 2>/dev/null
        echo "$n" >/results/written.new && mv /results/written.new /results/written
    done
    sync
    hashes >/tmp/before
    echo 3 >/proc/sys/vm/drop_caches
    hashes >/tmp/after
    cmp /tmp/before /tmp/after
    cp /tmp/after /results/hashes
    umount /mnt
    clean
}

check() {
    mkdir -p /mnt
    mount -t ext4 "${DISK}1" /mnt
    hashes >/tmp/now
    cmp /tmp/now /results/hashes
    size=$(cat /sys/block/vda/size)
    reached booted
    awaited grown
    n=0
    until [ "$(cat /sys/block/vda/size)" -gt "$size" ]; do
        n=$((n + 1))
        [ "$n" -lt 300 ] || { echo "the disk did not grow" >&2 && exit 1; }
        sleep 0.2
    done
    dd if=/dev/zero of=/mnt/large bs=1M count=96 conv=fsync 2>/dev/null
    reached large
    awaited measured
    rm /mnt/large
    sync
    fstrim -v /mnt
    reached trimmed
    awaited seen
    umount /mnt
    clean
}

"$1"
