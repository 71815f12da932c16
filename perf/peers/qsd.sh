# shellcheck shell=bash
# qemu-storage-daemon: one raw file (io_uring, no page cache) exported over NBD on a Unix socket. One copy,
# not replicated, and an answered write is not yet flushed: what a local export costs, no equal.

qsd_pid=

qsd_why() {
    needs qemu-storage-daemon qemu-system-common fio fio
    ! has fio || engine nbd
}

qsd_up() {
    mkdir -p "$WORK/qsd"
    filled_file "$WORK/qsd/disk"
    qsd_start
}

qsd_start() {
    rm -f "$WORK/qsd/socket"
    qemu-storage-daemon \
        --blockdev driver=file,node-name=file,filename="$WORK/qsd/disk",aio=io_uring,cache.direct=on \
        --blockdev driver=raw,node-name=disk,file=file,cache.direct=on \
        --object iothread,id=io0 \
        --nbd-server addr.type=unix,addr.path="$WORK/qsd/socket" \
        --export nbd,id=export,node-name=disk,name=disk,writable=on >"$WORK/qsd/log" 2>&1 &
    qsd_pid=$!
    wait_for 10 test -S "$WORK/qsd/socket" || die "qemu-storage-daemon: $(tail -n 3 "$WORK/qsd/log")"
}

qsd_load() { fio_load --ioengine=nbd --uri="nbd+unix:///disk?socket=$WORK/qsd/socket" -- "$@"; }
qsd_fill() { :; }

qsd_cold() {
    end_all "$qsd_pid"
    qsd_start
}

qsd_rss() { rss_of "$qsd_pid"; }
qsd_pids() { echo "$qsd_pid"; }

qsd_down() {
    [ -z "$qsd_pid" ] || end_all "$qsd_pid"
    qsd_pid=
    rm -rf --one-file-system "$WORK/qsd"
}
