#!/bin/busybox sh
# shellcheck shell=dash
# In a guest of one processor whose time counts instructions: what a request to an NVMe drive costs, through the kernel and without it.
#
#   lab_spdk_cost.sh COUNT DRIVER [poll|interrupt]...
#
# Prints `cost WAY KIND NANOSECONDS`, for each way: `uring`, on the kernel's driver, and then each of those named, with DRIVER.
set -eu
count=$1 driver=$2
shift 2
export OGEE_COST_COUNT="$count"

# measure WAY COMMAND...
measure() {
    way=$1
    shift
    "$@" nvme_drive cost --exact --ignored --nocapture >/tmp/cost.log 2>&1 || { tail -n 20 /tmp/cost.log && exit 10; }
    sed -n "s/.*cost: /cost $way /p" /tmp/cost.log
}

measure uring sh /root/lab_spdk.sh nvme 192 env OGEE_COST_PATH=/dev/nvme0n1
for way in "$@"; do
    measure "$way" sh /root/lab_spdk.sh "$driver" 192 env OGEE_NVME_WAIT="$way"
done
