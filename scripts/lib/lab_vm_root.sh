#!/bin/busybox sh
# shellcheck shell=dash
# What a guest does whose root file system is on an Ogee volume: everything it runs and writes is there. The host
# tells it through /results when to end: scripts/test.d/vhost.sh.
set -eu
case $(awk '$2 == "/" { print $1 }' /proc/mounts) in
/dev/vda | /dev/root) ;;
*) echo "the root is not the volume" >&2 && exit 1 ;;
esac
# One that is always at it, so that something is under way whatever dies.
(until [ -e /results/quiet ]; do dd if=/dev/zero of=/var/tmp/busy bs=64k count=8 conv=fsync 2>/dev/null; done) &
n=0
until [ -e /results/quiet ]; do
    n=$((n + 1))
    dd if=/dev/urandom of="/var/tmp/f$((n % 20))" bs=16k count=$((n % 7 + 1)) conv=fsync 2>/dev/null
    md5sum "/var/tmp/f$((n % 20))" >"/var/tmp/f$((n % 20)).md5"
    # What is run next comes from the volume again, and so do the files.
    echo 3 >/proc/sys/vm/drop_caches
    md5sum -c -s "/var/tmp/f$((n % 20)).md5"
    echo "$n" >/results/written.new && mv /results/written.new /results/written
done
wait
sync
for file in /var/tmp/*.md5; do md5sum -c -s "$file"; done
# No request of the disk failed, and the file system noticed nothing.
if dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|Buffer I/O|blk_update_request|hung task|Remounting filesystem read-only'; then
    echo "the kernel saw an error" >&2
    exit 1
fi
