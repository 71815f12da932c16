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

# vhost_killed NAME [COMMAND...]   SIGKILL, the command, and another one in its place
vhost_killed() {
    local name=$1
    shift
    # The shell would tell of a kill in words of its own.
    { kill -9 "$EXPORT_PID" && ! wait "$EXPORT_PID"; } 2>/dev/null
    "$@"
    : >"$TEST_DIR/export-$name.log"
    vhost_start "$name"
}

# nodes_signal SIGNAL   to every chunkserver that runs
nodes_signal() {
    local name
    for name in $(chunkservers); do kill "-$1" "$(node_pid "$name")"; done
}

# guest_start OPTION... -- COMMAND...   a guest on $SOCKET, in the background
guest_start() {
    local memory=384M
    lab_start --memory "$memory" --cpus 2 --timeout 500 --results "$RESULTS_HERE" --modules "virtio_blk ext4" \
        --qemu "-object memory-backend-memfd,id=mem,size=$memory,share=on -machine memory-backend=mem -chardev socket,id=disk,path=$SOCKET,reconnect=1 -device vhost-user-blk-pci,chardev=disk,num-queues=2" \
        "$@"
}

# vm_start PHASE   the guest of lab_vm.sh
vm_start() {
    guest_start --tools "sfdisk mke2fs fstrim" --copy /etc/mke2fs.conf:/etc/mke2fs.conf \
        --copy "$REPO/scripts/lib/lab_vm.sh:/root/lab_vm.sh" -- sh /root/lab_vm.sh "$1"
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
    for round in $(seq "$(ci_or_full 1 20)"); do
        vhost_killed vm
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

# A machine that has nothing but a volume: its root file system. A chunkserver, the metadata server and the server of
# the disk die, that one again and again with nobody to ask; the machine sees pauses. When the metadata server is
# back, another user is granted the volume, and what went on without it is shut out.
test_vm_boot() {
    local root=$TEST_DIR/root.img leader round
    cluster_up --store-size 2GiB --log-size 128MiB
    create_volume root --size 128MiB
    TMPDIR=$TEST_DIR "$LAB" rootfs "$root" 128M --modules "virtio_blk ext4" --copy "$REPO/scripts/lib/lab_vm_root.sh:/root/lab_vm_root.sh" \
        >"$TEST_DIR/rootfs.log" 2>&1 || give_up "no root file system: $(tail -n 3 "$TEST_DIR/rootfs.log")"
    export_start root
    qemu-img convert -n -f raw -O raw "$root" "$URI" 2>"$TEST_DIR/convert.log" || give_up "qemu-img: $(tail -n 3 "$TEST_DIR/convert.log")"
    export_stop
    RESULTS_HERE=$TEST_DIR/results
    mkdir -p "$RESULTS_HERE"
    vhost_start root
    guest_start --root /dev/vda --copy "$REPO/scripts/lib/lab_vm_root.sh:/root/lab_vm_root.sh" -- sh /root/lab_vm_root.sh
    wait_for 240 has_written 3 || give_up "the guest writes nothing: $(tail -n 5 "$TEST_DIR/lab.log")"
    process_alive "$LAB_PID" || give_up "the guest ended: $(tail -n 8 "$TEST_DIR/lab.log")"

    leader=$(volume_leader root)
    node_kill "$leader"
    goes_on "$leader killed"
    node_start "$leader"
    node_kill mds1
    goes_on "metadata server killed"
    for round in $(seq "$(ci_or_full 2 10)"); do
        # What the guest asks now is under way when the server dies.
        nodes_signal STOP
        sleep 0.7
        vhost_killed root nodes_signal CONT
        grep -q "incarnation=i$((round + 1)) " "$TEST_DIR/export-root.log" ||
            give_up "not incarnation $((round + 1)): $(grep attach "$TEST_DIR/export-root.log")"
        goes_on "server of the disk killed, and nobody to ask ($round)"
        grep -o "carries out again.*" "$TEST_DIR/export-root.log" | head -n 1 | sed 's/^/   /' ||
            give_up "no request was under way: $(cat "$TEST_DIR/export-root.log")"
    done
    # A chunkserver without a metadata server.
    leader=$(chunkservers | tail -n 1)
    node_kill "$leader"
    goes_on "$leader killed"
    node_start mds1
    node_start "$leader"
    goes_on "all back"
    : >"$RESULTS_HERE/quiet"
    lab_end 0 240
    wait_healthy 60
    export_start root
    qemu-img convert -f raw -O raw "$URI" "$TEST_DIR/root.after" 2>"$TEST_DIR/convert.log" || give_up "qemu-img: $(tail -n 3 "$TEST_DIR/convert.log")"
    e2fsck -fn "$TEST_DIR/root.after" >"$TEST_DIR/fsck.log" 2>&1 || give_up "e2fsck: $(tail -n 5 "$TEST_DIR/fsck.log")"
    copysets_agree
}

# fio writes a raw disk in random order and blocks of many sizes, and reads it back against checksums, while the server of
# the disk dies again and again.
test_vm_fio() {
    local round
    cluster_up --store-size 2GiB --log-size 128MiB
    create_volume fio --size 256MiB
    RESULTS_HERE=$TEST_DIR/results
    mkdir -p "$RESULTS_HERE"
    vhost_start fio
    guest_start --tools fio -- sh -c ': >/results/started; fio --name=verify --filename=/dev/vda --rw=randwrite --bsrange=512-128k \
        --bs_unaligned=0 --blockalign=512 --ioengine=libaio --iodepth=32 --direct=1 --size=200M --verify=crc32c --verify_fatal=1 \
        --verify_backlog=512 --group_reporting && ! dmesg | grep -E "I/O error|blk_update_request"'
    phase started 240
    for round in 1 2 3 4 5; do
        sleep 4
        process_alive "$LAB_PID" || break
        vhost_killed fio
    done
    echo "   the server of the disk died $((round - 1)) times or more"
    lab_end 0 900
    grep -E "READ:|WRITE:" "$TEST_DIR/lab.log" | sed 's/^/   /'
    grep -q "READ:" "$TEST_DIR/lab.log" || give_up "fio has verified nothing"
    copysets_agree
}

# An export that went on without a metadata server is shut out by the next user that one grants the volume to, and what
# it has kept is refused from then on.
test_export_resumed() {
    local state=$TEST_DIR/state socket=$TEST_DIR/r.sock
    cluster_up --store-size 1GiB --log-size 128MiB
    create_volume r --size 64MiB
    resumed_start
    URI="nbd+unix:///r?socket=$socket"
    qemu-io -f raw -c 'write -P 1 0 64k' "$URI" >"$TEST_DIR/io.log" 2>&1 || give_up "no write: $(tail -n 3 "$TEST_DIR/io.log")"
    node_kill mds1
    { kill -9 "$EXPORT_PID" && ! wait "$EXPORT_PID"; } 2>/dev/null
    resumed_start
    grep -q "incarnation=i2 " "$TEST_DIR/export-r.log" || give_up "it did not go on: $(cat "$TEST_DIR/export-r.log")"
    qemu-io -f raw -c 'read -P 1 0 64k' -c 'write -P 2 0 64k' -c 'read -P 2 0 64k' "$URI" >"$TEST_DIR/io.log" 2>&1 ||
        give_up "no I/O without a metadata server: $(tail -n 3 "$TEST_DIR/io.log")"
    # A second server beside it has to leave the volume alone.
    resumed_refused second OGEE-3503
    node_start mds1
    "$OGEE" bench r --rw write --bs 4k --iodepth 1 --io-size 64k --offset 1MiB >"$TEST_DIR/bench.log" 2>&1 || give_up "bench: $(tail -n 3 "$TEST_DIR/bench.log")"
    ! qemu-io -f raw -c 'write -P 3 0 64k' "$URI" >"$TEST_DIR/io.log" 2>&1 || give_up "a superseded export still writes"
    grep -q "superseded" "$TEST_DIR/export-r.log" || give_up "the export does not know that it is superseded"
    node_kill mds1
    { kill -9 "$EXPORT_PID" && ! wait "$EXPORT_PID"; } 2>/dev/null
    resumed_refused third "attached elsewhere"
    node_start mds1
}

# resumed_refused NAME TEXT   another server ends with 1, and says so
resumed_refused() {
    local outcome=0
    bounded 60 "$OGEE" export nbd r --socket "$TEST_DIR/$1.sock" --state-dir "$state" >"$TEST_DIR/$1.log" 2>&1 || outcome=$?
    [ "$outcome" = 1 ] || give_up "the $1 server ended with $outcome: $(tail -n 3 "$TEST_DIR/$1.log")"
    grep -q "$2" "$TEST_DIR/$1.log" || give_up "the $1 server does not say \"$2\": $(tail -n 3 "$TEST_DIR/$1.log")"
}

resumed_start() {
    rm -f "$socket"
    "$OGEE" export nbd r --socket "$socket" --state-dir "$state" >>"$TEST_DIR/export-r.log" 2>&1 &
    EXPORT_PID=$!
    defer end_process "$EXPORT_PID"
    wait_for 30 test -S "$socket" || give_up "the export makes no socket: $(tail -n 3 "$TEST_DIR/export-r.log")"
}

# ---- the group ---------------------------------------------------------------------------------

need_packages qemu-system-x86 busybox-static cpio kmod binutils e2fsprogs fdisk util-linux jq curl qemu-utils libnbd-bin fio
build_for_tests
begin_group vhost
run_test vm_disk "$(ci_or_full 500 900)" test_vm_disk
run_test vm_boot "$(ci_or_full 300 900)" test_vm_boot
run_test export_resumed 120 test_export_resumed
when_asked vm_fio 1200 test_vm_fio
