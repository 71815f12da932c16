# shellcheck shell=bash
# The disk itself: a file on the same file system, by io_uring with O_DIRECT. Writes are O_DSYNC, as an
# acknowledged write of ours is durable; RAW_SYNC=none leaves them to the device's cache.

raw_args() { printf '%s\n' --ioengine=io_uring --direct=1 --filename="$WORK/raw/disk" "--sync=${RAW_SYNC:-dsync}"; }

raw_why() {
    needs fio fio
    ! has fio || engine io_uring
}

raw_up() {
    mkdir -p "$WORK/raw"
    filled_file "$WORK/raw/disk"
}

raw_load() {
    local args
    mapfile -t args < <(raw_args)
    fio_load "${args[@]}" -- "$@"
}

# Its blocks lie where they lie; what the device caches goes with the reads of the others.
raw_fill() { :; }
raw_cold() { :; }
raw_rss() { echo 0; }
raw_pids() { :; }
raw_down() { rm -rf --one-file-system "$WORK/raw"; }
