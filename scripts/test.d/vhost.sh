#!/usr/bin/env bash
# Virtual machines whose disk is a volume, through vhost-user-blk. docs/virtual-machines.md says how to use it.
#   ONLY="vm_disk" KEEP=1 scripts/test vhost
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$REPO/scripts/lib/cluster.sh"
# shellcheck source=scripts/lib/lab_runs.sh
. "$REPO/scripts/lib/lab_runs.sh"
cd "$REPO"

# vhost_start NAME   serves a volume: $EXPORT_PID, $SOCKET
vhost_start() {
    SOCKET=$TEST_DIR/vhost/$1.sock
    "$OGEE" export vhost-user "$1" --socket-dir "$TEST_DIR/vhost" --queues 2 >>"$TEST_DIR/export-$1.log" 2>&1 &
    EXPORT_PID=$!
    defer end_process "$EXPORT_PID"
    wait_for 30 grep -q "serves vhost-user" "$TEST_DIR/export-$1.log" || give_up "the export of $1 does not serve: $(tail -n 3 "$TEST_DIR/export-$1.log")"
}

# vm_start PHASE   a guest on $SOCKET, in the background
vm_start() {
    local memory=384M
    lab_start --memory "$memory" --cpus 2 --timeout 500 --results "$RESULTS_HERE" --modules "virtio_blk ext4" \
        --tools "sfdisk mke2fs fstrim" --copy /etc/mke2fs.conf:/etc/mke2fs.conf --copy "$REPO/scripts/lib/lab_vm.sh:/root/lab_vm.sh" \
        --qemu "-object memory-backend-memfd,id=mem,size=$memory,share=on -machine memory-backend=mem -chardev socket,id=disk,path=$SOCKET,reconnect=1 -device vhost-user-blk-pci,chardev=disk,num-queues=2" \
        -- sh /root/lab_vm.sh "$1"
}

# phase NAME SECONDS   waits for the guest to get there
phase() {
    wait_for "$2" phase_or_end "$1" || give_up "the guest does not get to $1: $(tail -n 5 "$TEST_DIR/lab.log")"
    [ -e "$RESULTS_HERE/$1" ] || give_up "the guest ended before $1: $(tail -n 8 "$TEST_DIR/lab.log")"
}

phase_or_end() {
    [ -e "$RESULTS_HERE/$1" ] || process_gone "$LAB_PID"
}

# has_written COUNT   files since the guest began
has_written() {
    process_gone "$LAB_PID" || [ "$(cat "$RESULTS_HERE/written" 2>/dev/null || echo 0)" -ge "$1" ]
}

# goes_on WHAT   the guest writes ten more files
goes_on() {
    local now start=$SECONDS
    now=$(cat "$RESULTS_HERE/written" 2>/dev/null || echo 0)
    wait_for 90 has_written $((now + 10)) || give_up "the guest stands still after $1"
    process_alive "$LAB_PID" || give_up "the guest ended after $1: $(tail -n 8 "$TEST_DIR/lab.log")"
    echo "   $1: ten more files in $((SECONDS - start)) s"
}

used_bytes() {
    local name sum=0
    for name in $(chunkservers); do
        sum=$((sum + $(metrics_of "$name" | awk '/^ogee_chunkserver_used_bytes/ { printf "%d", $2 }')))
    done
    echo "$sum"
}

has_freed() {
    [ "$(used_bytes)" -lt "$1" ]
}

# A disk with a partition and a file system; a leader, the server of the disk and the metadata server die while the
# guest writes; it sees a pause and no error. After a reboot everything is there; the disk grows under it; what it
# discards is given back.
test_vm_disk() {
    local leader before full
    cluster_up --store-size 2GiB --log-size 128MiB
    create_volume vm --size 512MiB
    RESULTS_HERE=$TEST_DIR/results
    mkdir -p "$RESULTS_HERE"
    vhost_start vm
    vm_start make
    : >"$RESULTS_HERE/writing"
    wait_for 240 has_written 5 || give_up "the guest writes nothing: $(tail -n 5 "$TEST_DIR/lab.log")"
    process_alive "$LAB_PID" || give_up "the guest ended: $(tail -n 8 "$TEST_DIR/lab.log")"

    leader=$(volume_leader vm)
    node_kill "$leader"
    goes_on "$leader killed"
    node_start "$leader"
    # Again and again, with requests under way.
    local round again=0
    for round in $(seq "$(ci_or_full 3 20)"); do
        # The shell would tell of a kill in words of its own.
        { kill -9 "$EXPORT_PID" && ! wait "$EXPORT_PID"; } 2>/dev/null
        : >"$TEST_DIR/export-vm.log"
        vhost_start vm
        goes_on "server of the disk killed ($round)"
        ! grep -q "carries out again" "$TEST_DIR/export-vm.log" || again=$((again + 1))
    done
    echo "   requests were under way, and carried out again, $again times"
    node_kill mds1
    goes_on "metadata server killed"
    node_start mds1
    : >"$RESULTS_HERE/quiet"
    lab_end 0 240

    vm_start check
    phase booted 240
    "$OGEE" volume resize vm --size 1GiB >>"$TEST_DIR/create.log" 2>&1
    : >"$RESULTS_HERE/grown"
    phase large 240
    sleep 3
    full=$(used_bytes)
    : >"$RESULTS_HERE/measured"
    phase trimmed 240
    # 96 MiB on three replicas; most of it at least.
    before=$((full - 200 * 1048576))
    wait_for 60 has_freed "$before" || give_up "discards free nothing: $full bytes used before, $(used_bytes) after"
    echo "   used before the discard $((full >> 20)) MiB, after it $(($(used_bytes) >> 20)) MiB"
    : >"$RESULTS_HERE/seen"
    lab_end 0 120
    copysets_agree
}

# ---- the group ---------------------------------------------------------------------------------

need_packages qemu-system-x86 busybox-static cpio kmod binutils e2fsprogs fdisk util-linux jq curl
build_release
begin_group vhost
run_test vm_disk "$(ci_or_full 500 900)" test_vm_disk
