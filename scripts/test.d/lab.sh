#!/usr/bin/env bash
# The lab itself, and power cuts in it. docs/reliability.md says what each test proves.
#   ONLY="power_killed" KEEP=1 SEED=7 scripts/test lab
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$REPO/scripts/lib/cluster.sh"
cd "$REPO"

# shellcheck source=scripts/lib/lab_runs.sh
. "$REPO/scripts/lib/lab_runs.sh"

POWER_CUT_PY=$REPO/scripts/lib/power_cut.py
# The dev cluster's stores; small, so that the log comes round and blocks are written back within seconds.
STORES="cs1 cs2 cs3"
STORE_SIZE=192MiB
LOG_SIZE=48MiB
VOLUME_SIZE=64MiB
# Stamps of one guest's writer; the next one's are all larger.
STAMPS=1000000000

# ---- the lab ----------------------------------------------------------------------------------

# Each way in which a run can end, and that nothing is left of it.
test_lab_ends() {
    local pid start=$SECONDS
    lab_ends 0 --results "$TEST_DIR/results" -- sh -c 'uname -r; echo "it'\''s here" >/results/file'
    grep -qxF "$("$LAB" kernel)" "$TEST_DIR/lab.log" || give_up "another kernel ran: $(cat "$TEST_DIR/lab.log")"
    grep -qx "it's here" "$TEST_DIR/results/file" || give_up "no file came back"
    echo "   a guest in $((SECONDS - start)) s"
    lab_ends 200 -- sh -c 'exit 200'
    lab_ends 125 -- sh -c 'echo c >/proc/sysrq-trigger; sleep 60'
    lab_ends 124 --timeout 20 --pids "$TEST_DIR/pids" -- sleep 600
    pid=$(cat "$TEST_DIR/pids")
    process_gone "$pid" || give_up "QEMU outlives a run that took too long"
    lab_ends 126 --modules no_such_module -- true

    # Killed from outside: the guest, and then the lab itself.
    lab_start --timeout 120 -- sleep 600
    kill -9 "$GUEST_PID"
    lab_end 137
    lab_start --timeout 120 -- sleep 600
    kill -9 "$LAB_PID"
    wait_for 10 process_gone "$GUEST_PID" || give_up "QEMU outlives the lab"
}

# Two guests on one wire: packets, and a stream.
test_lab_two_guests() {
    # shellcheck disable=SC2016 # the guests' variables
    lab_ends 0 --guests 2 --memory 256M --results "$TEST_DIR/results" -- sh -c '
        until ping -c 1 -W 1 "$LAB_PEER"; do :; done
        if [ "$LAB_GUEST" = 1 ]; then
            mkdir /tmp/www && seq 1 100000 >/tmp/www/stream
            httpd -p 7000 -h /tmp/www
            until [ -e /results/fetched ]; do sleep 0.2; done
        else
            until wget -q -O /results/stream "http://$LAB_PEER:7000/stream"; do sleep 0.2; done
            : >/results/fetched
        fi'
    cmp <(seq 1 100000) "$TEST_DIR/results/stream" || give_up "the stream is not what was sent"
    grep -q '^\[1\] .* 0% packet loss' "$TEST_DIR/lab.log" || give_up "no ping: $(tail -n 5 "$TEST_DIR/lab.log")"
}

# rxe on both: a verbs connection between them, and a sum over what it carried.
test_lab_rdma() {
    # shellcheck disable=SC2016 # the guests' variables
    lab_ends 0 --guests 2 --memory 256M --rdma -- sh -c '
        /usr/bin/rdma link
        ibv_devices | grep rxe0 || exit 1
        ibv_devinfo -d rxe0 | grep PORT_ACTIVE || exit 1
        if [ "$LAB_GUEST" = 1 ]; then
            rping -s -a "$LAB_ADDRESS" -C 10 -v -V
        else
            until rping -c -a "$LAB_PEER" -C 10 -v -V; do sleep 0.5; done
        fi'
    grep -q '\[2\] ping data: rdma-ping-9: ' "$TEST_DIR/lab.log" || give_up "no tenth ping: $(tail -n 5 "$TEST_DIR/lab.log")"
    grep '\[1\] link' "$TEST_DIR/lab.log" | sed 's/^/   /'
}

# Virtual time counts instructions: the same work costs the same.
test_lab_icount() {
    local at first last
    for at in 1 2; do
        # shellcheck disable=SC2016 # the guest's variables
        lab_ends 0 --icount --timeout 200 --memory 256M --results "$TEST_DIR/results" -- sh -c '
            now() { awk "/^now at/ { print \$3 }" /proc/timer_list; }
            before=$(now)
            seq 1 4000 | while read -r n; do echo $((n * n)); done | md5sum
            echo "$before $(now)" >>/results/cost'
    done
    first=$(awk 'NR == 1 { print ($2 - $1) / 1e9 }' "$TEST_DIR/results/cost") last=$(awk 'NR == 2 { print ($2 - $1) / 1e9 }' "$TEST_DIR/results/cost")
    echo "   the same work twice: $first s and $last s of virtual time"
    awk -v a="$first" -v b="$last" 'BEGIN { exit !(a > 0.1 && a - b < 0.01 * a && b - a < 0.01 * a) }' || give_up "costs do not repeat: $first s and $last s"
}

# ---- power: the disks --------------------------------------------------------------------------

# What makes every other test here mean something: flushed and forced writes always survive, the others
# are seen kept, lost and torn.
test_lossy_disk() {
    local seed out=$TEST_DIR/out kept=0 lost=0 torn=0
    RUN=$TEST_DIR/run BASE=$TEST_DIR/base
    mkdir -p "$RUN/disks" "$BASE"
    truncate -s 1M "$BASE/a.img"
    record_start a
    echo "0 16 1" | socat -u - "UNIX-CONNECT:$RUN/disks/acks.sock"
    # The client crashes: closing would flush.
    sh -c '"$@"; true' -- qemu-io -f raw -t none -c 'write -P 1 0 64k' -c flush -c 'write -P 2 64k 64k' \
        -c 'write -f -P 3 128k 64k' -c abort "nbd+unix:///?socket=$RUN/disks/a.sock" >"$TEST_DIR/qemu-io.log" 2>&1
    record_stop
    for ((seed = 1; seed <= 40; seed++)); do
        "$PYTHON" "$POWER_CUT_PY" cut --dir "$RUN/disks" --base "$BASE" --out "$out" --seed "$seed" --last >"$TEST_DIR/cut.json"
        [ "$(pattern 0)$(pattern 2)" = 13 ] || give_up "seed $seed: what was flushed or forced is $(pattern 0) and $(pattern 2)"
        case $(pattern 1) in
        2) kept=$((kept + 1)) ;;
        0) lost=$((lost + 1)) ;;
        *) torn=$((torn + 1)) ;;
        esac
    done
    echo "   of 40 unflushed writes $kept were kept, $lost lost, $torn torn"
    [ $((kept * lost * torn)) -gt 0 ] || give_up "unflushed writes: $kept kept, $lost lost, $torn torn"
}

# pattern AT   the bytes that the 64 KiB there consist of
pattern() {
    dd if="$TEST_DIR/out/a.img" bs=64k skip="$1" count=1 status=none | od -An -v -tu1 -w1 | sort -un | tr -d ' \n'
}

# record_start NAME...   images of $BASE as recorded disks, $RUN/disks/NAME.sock
record_start() {
    local name disks=()
    for name in "$@"; do
        cp --sparse=always --reflink=auto "$BASE/$name.img" "$RUN/disks/$name.now"
        disks+=(--disk "$name=$RUN/disks/$name.now")
    done
    "$PYTHON" "$POWER_CUT_PY" serve --dir "$RUN/disks" "${disks[@]}" >"$TEST_DIR/serve.log" 2>&1 &
    RECORDER=$!
    defer end_process "$RECORDER"
    wait_for 20 test -e "$RUN/disks/ready" || give_up "no disks: $(tail -n 3 "$TEST_DIR/serve.log")"
}

record_stop() {
    local status=0
    kill "$RECORDER"
    wait_for 60 process_gone "$RECORDER" || give_up "the disks do not end"
    wait "$RECORDER" || status=$?
    [ "$status" = 0 ] || give_up "the disks ended with $status: $(tail -n 3 "$TEST_DIR/serve.log")"
    [ ! -s "$TEST_DIR/serve.log" ] || give_up "the disks failed: $(tail -n 3 "$TEST_DIR/serve.log")"
}

# ---- power: the cluster and its disks ----------------------------------------------------------

# A cluster with a volume, as images: $BASE/{cs1,cs2,cs3,mds}.img; its configuration serves guests too.
power_base() {
    BASE=$TEST_DIR/base CUTS=0
    cluster_up --store-size "$STORE_SIZE" --log-size "$LOG_SIZE"
    create_volume disk --size "$VOLUME_SIZE"
    "$OGEE" dev down --dir "$DIR" >>"$TEST_DIR/down.log" 2>&1
    mkdir "$BASE"
    local name
    for name in $STORES; do mv "$DIR/data/$name-0.store" "$BASE/$name.img"; done
    mkdir "$TEST_DIR/tree"
    mv "$DIR/data/mds1" "$TEST_DIR/tree/mds1"
    mke2fs -q -t ext4 -d "$TEST_DIR/tree" "$BASE/mds.img" 64M >"$TEST_DIR/mke2fs.log" 2>&1
}

# guest_folder   $RESULTS_HERE: the configuration as the guest wants it, and what must be read back
guest_folder() {
    RESULTS_HERE=$RUN/results
    mkdir -p "$RESULTS_HERE/conf"
    local name file
    sed -e 's|^data_dir = .*|data_dir = "/data/mds1"|' "$DIR/conf/mds1.toml" >"$RESULTS_HERE/conf/mds1.toml"
    echo 'offline_ms = 10000' >>"$RESULTS_HERE/conf/mds1.toml"
    for name in $STORES; do
        file=$RESULTS_HERE/conf/$name.toml
        sed -e "s|^path = .*|path = \"/dev/lab/$name\"|" -e '/^create = /d' "$DIR/conf/$name.toml" >"$file"
        # An emulated processor is ten times slower.
        printf '\n[raft]\nheartbeat_ms = 600\nelection_min_ms = 3000\nelection_max_ms = 5000\n' >>"$file"
    done
    [ ! -e "$BASE/acks" ] || cp "$BASE/acks" "$RESULTS_HERE/acks"
}

# power_guest MODE FIRST SECONDS OPTION...   a guest with the cluster and a writer, in the background
power_guest() {
    lab_start --copy "$OGEE:/usr/bin/ogee" --copy "$POWER_CUT:/usr/bin/power_cut" --copy "$REPO/scripts/lib/lab_power.sh:/root/lab_power.sh" \
        --tools dmsetup --modules "ext4 dm_log_writes dm_flakey" --memory 1536M --cpus 2 --timeout 400 --results "$RESULTS_HERE" \
        "${@:4}" -- sh /root/lab_power.sh "$1" "$2" "$3"
}

# one_device   the disks of $BASE as parts of one image, $RUN/one.img; $RUN/results/layout says where
one_device() {
    local name start=0 length
    LAYOUT=()
    for name in $STORES mds; do
        length=$(stat -c %s "$BASE/$name.img")
        dd if="$BASE/$name.img" of="$RUN/one.img" bs=1M seek=$((start / 1048576)) conv=sparse,notrunc status=none
        echo "$name $start $length" >>"$RESULTS_HERE/layout"
        LAYOUT+=(--layout "$name=$start:$length")
        start=$((start + length))
    done
    truncate -s "$start" "$RUN/one.img"
}

# ---- power: judging a cut ----------------------------------------------------------------------

# recover_cut OUT ACKS [WRONG]   a cluster on the images of OUT, on this host: it comes up, every
# acknowledged write is there, whole, and stays, and the replicas agree. With WRONG: something is missing.
recover_cut() {
    local name status=0
    for name in $STORES; do mv "$1/$name.img" "$DIR/data/$name-0.store"; done
    # Replays the file system's journal, as mounting it does.
    e2fsck -fy "$1/mds.img" >"$TEST_DIR/fsck.log" 2>&1 || [ $? = 1 ] || give_up "$1: the metadata server's file system: $(tail -n 3 "$TEST_DIR/fsck.log")"
    rm -rf "$DIR/data/mds1" "$DIR"/logs/*.log
    debugfs -R "rdump /mds1 $DIR/data" "$1/mds.img" >"$TEST_DIR/debugfs.log" 2>&1
    "$OGEE" dev up --dir "$DIR" >"$TEST_DIR/up.log" 2>&1 || give_up "$1: dev up: $(tail -n 3 "$TEST_DIR/up.log")"
    "$POWER_CUT" verify "$OGEE_MDS" disk "$2" "$1/found" >"$1/verify.json" 2>"$TEST_DIR/verify.log" || status=$?
    if [ -n "${3:-}" ]; then
        { [ "$status" = 1 ] && jq -e '.wrong > 0' "$1/verify.json" >/dev/null; } || give_up "$1: what disks forgot was not missed: $(cat "$1/verify.json")"
    else
        [ "$status" = 0 ] || give_up "$1: $(cat "$1/verify.json") $(head -n 4 "$TEST_DIR/verify.log")"
        jq -e '.written > 0' "$1/verify.json" >/dev/null || give_up "$1: nothing was read"
        copysets_agree >/dev/null
        ! grep -h 'damage' "$DIR"/logs/*.log >"$TEST_DIR/damage.log" || give_up "$1: a power cut is no damage: $(head -n 2 "$TEST_DIR/damage.log")"
        # What was read once stays.
        "$OGEE" dev down --dir "$DIR" >>"$TEST_DIR/down.log" 2>&1
        "$OGEE" dev up --dir "$DIR" >"$TEST_DIR/up.log" 2>&1 || give_up "$1: dev up again: $(tail -n 3 "$TEST_DIR/up.log")"
        "$POWER_CUT" verify "$OGEE_MDS" disk "$1/found" "$1/again" exact >"$1/again.json" 2>"$TEST_DIR/verify.log" ||
            give_up "$1: read again: $(cat "$1/again.json") $(head -n 4 "$TEST_DIR/verify.log")"
        CUTS=$((CUTS + 1))
    fi
    "$OGEE" dev down --dir "$DIR" >>"$TEST_DIR/down.log" 2>&1
    for name in $STORES; do rm -f "$DIR/data/$name-0.store"; done
}

# cut_and_recover NAME SEED OLD_ACKS OPTION...   a cut of the run in $RUN (options of power_cut.py);
# OLD_ACKS counted before it began
cut_and_recover() {
    local out=$RUN/cut-$1
    mkdir -p "$out"
    "$PYTHON" "$POWER_CUT_PY" cut --base "$BASE" --out "$out" --seed "$2" "${@:4}" >"$out/cut.json" 2>"$TEST_DIR/cut.log" || give_up "cut $1: $(tail -n 1 "$TEST_DIR/cut.log")"
    cat "$3" "$out/acks" >"$out/due"
    echo "   cut $1: $(jq -c '[.event, .of, .acked, (.disks | map_values("\(.waiting) \(.kept)"))]' "$out/cut.json")"
    case $1 in
    lie*) recover_cut "$out" "$out/due" wrong ;;
    *) recover_cut "$out" "$out/due" ;;
    esac
    rm -f "$out"/*.img
}

# ---- power: three ways -------------------------------------------------------------------------

# The guest is killed, and with it goes what its disks had not been told to keep; the next one starts
# on what is left, reads it back and writes on. The log of each run is cut at further points, also while
# the cluster recovered. At last a control: disks that forget what they said was durable are found out.
test_power_killed() {
    local kills cuts round at seed name sockets
    kills=$(ci_or_full 3 9) cuts=$(ci_or_full 1 4)
    power_base
    for ((round = 1; round <= kills; round++)); do
        RUN=$TEST_DIR/run-$round seed=$((SEED + round * 100))
        mkdir -p "$RUN/disks"
        guest_folder
        # shellcheck disable=SC2086 # one word a store
        record_start $STORES mds
        sockets=()
        for name in $STORES mds; do sockets+=(--disk "nbd+unix:///?socket=$RUN/disks/$name.sock"); done
        power_guest record $((round * STAMPS)) 300 "${sockets[@]}" --port "acks=$RUN/disks/acks.sock"
        wait_for 300 writes_or_ended || give_up "round $round: no write was acknowledged: $(tail -n 8 "$TEST_DIR/lab.log")"
        process_alive "$LAB_PID" || give_up "round $round: the guest ended: $(tail -n 8 "$TEST_DIR/lab.log")"
        sleep_ms $((2000 + (seed * 7919) % 8000))
        kill -9 "$GUEST_PID"
        lab_end 137
        record_stop
        : >"$RUN/old"
        if [ -e "$BASE/acks" ]; then
            [ -e "$RESULTS_HERE/recovered" ] || give_up "round $round: the guest did not read back what the last cut left"
            CUTS=$((CUTS + 1))
            cp "$RESULTS_HERE/found" "$RUN/old"
            cut_and_recover "$round-early" "$seed" "$BASE/acks" --dir "$RUN/disks" --early
        fi
        for ((at = 1; at <= cuts; at++)); do
            cut_and_recover "$round-$at" $((seed + at)) "$RUN/old" --dir "$RUN/disks"
        done
        if [ "$round" = "$kills" ]; then
            # The very end, here; a guest recovered the others.
            cut_and_recover "$round-end" $((seed + 50)) "$RUN/old" --dir "$RUN/disks" --last
            cut_and_recover lie "$seed" "$RUN/old" --dir "$RUN/disks" --last --lie
        else
            next_base "$seed"
        fi
        rm -rf "$RUN/disks"
    done
    echo "   $kills guests killed, $CUTS cuts: no acknowledged write lost"
}

writes_or_ended() {
    [ -e "$RUN/disks/acking" ] || process_gone "$LAB_PID"
}

# next_base SEED   what the kill left is what the next guest starts on
next_base() {
    local new=$RUN/next
    "$PYTHON" "$POWER_CUT_PY" cut --dir "$RUN/disks" --base "$BASE" --out "$new" --seed "$1" --last >"$RUN/next.json"
    echo "   killed: $(jq -c '[.event, .of, .acked, (.disks | map_values("\(.waiting) \(.kept)"))]' "$RUN/next.json")"
    cat "$RUN/old" "$new/acks" >"$new/due"
    mv "$new/due" "$new/acks"
    rm -rf "$BASE"
    mv "$new" "$BASE"
}

# One device under all disks, recorded by the guest's own kernel, replayed to random points.
test_power_log_writes() {
    local cuts at
    cuts=15
    power_base
    RUN=$TEST_DIR/run
    mkdir "$RUN"
    guest_folder
    one_device
    truncate -s 8G "$RUN/log.img"
    power_guest log-writes "$STAMPS" 40 --disk "$RUN/one.img" --disk "$RUN/log.img,cache=unsafe"
    lab_end 0 400
    grep -q '"writes": [1-9]' "$TEST_DIR/lab.log" || give_up "nothing was written: $(tail -n 5 "$TEST_DIR/lab.log")"
    : >"$RUN/old"
    for ((at = 1; at <= cuts; at++)); do
        cut_and_recover "$at" $((SEED + at)) "$RUN/old" --log-writes "$RUN/log.img" "${LAYOUT[@]}" --acks "$RESULTS_HERE/acks.written"
    done
    echo "   $CUTS cuts: no acknowledged write lost"
}

# The device goes on to answer, and drops what it is told; then the guest is killed.
test_power_flakey() {
    local rounds round name start length
    rounds=$(ci_or_full 1 3)
    power_base
    for ((round = 1; round <= rounds; round++)); do
        RUN=$TEST_DIR/run-$round
        mkdir "$RUN"
        guest_folder
        one_device
        power_guest flakey "$STAMPS" 24 --disk "$RUN/one.img"
        wait_for 300 test -e "$RESULTS_HERE/dropping" || give_up "nothing was dropped: $(tail -n 8 "$TEST_DIR/lab.log")"
        sleep 2
        kill -9 "$GUEST_PID"
        lab_end 137
        [ -s "$RESULTS_HERE/acks.written" ] || give_up "nothing was acknowledged"
        mkdir "$RUN/cut"
        while read -r name start length; do
            dd if="$RUN/one.img" of="$RUN/cut/$name.img" bs=1M skip=$((start / 1048576)) count=$((length / 1048576)) conv=sparse status=none
            truncate -s "$length" "$RUN/cut/$name.img"
        done <"$RESULTS_HERE/layout"
        recover_cut "$RUN/cut" "$RESULTS_HERE/acks.written"
        echo "   $(wc -l <"$RESULTS_HERE/acks.written") acknowledged before the device dropped writes: $(cat "$RUN/cut/verify.json")"
        rm -f "$RUN"/*.img
    done
}

# ---- RDMA --------------------------------------------------------------------------------------

# Our own binding on a real device (rxe): each of its tests, in a guest. And that a program with it in it
# starts where rdma-core has no device to show, and says so.
test_rdma_verbs() {
    local selftest=${CARGO_TARGET_DIR:-$REPO/target}/debug/examples/rdma_selftest
    need_rdma_headers
    if [ "${OGEE_SKIP_BUILD:-0}" = 0 ]; then
        cargo clippy --quiet -p ogee-rdma --features verbs --all-targets -- -D warnings || give_up "clippy"
        cargo test --quiet -p ogee-rdma --features verbs >"$TEST_DIR/unit.log" 2>&1 || give_up "$(tail -n 20 "$TEST_DIR/unit.log")"
        cargo build --quiet -p ogee-rdma --features verbs --example rdma_selftest
    fi
    if ldd "$selftest" | grep -E 'ibverbs|rdmacm'; then give_up "it would not start without rdma-core"; fi
    "$LAB" run --rdma --copy "$selftest:/usr/bin/rdma_selftest" --timeout 120 -- rdma_selftest 10.9.0.1 >"$TEST_DIR/guest.log" 2>&1 ||
        give_up "$(grep -v '^PASS' "$TEST_DIR/guest.log" | tail -n 5)"
    echo "   $(grep -c '^PASS' "$TEST_DIR/guest.log") tests on rxe"
    "$LAB" run --copy "$selftest:/usr/bin/rdma_selftest" -- sh -c '! rdma_selftest 10.9.0.1 devices_and_ports_are_told' >"$TEST_DIR/without.log" 2>&1 ||
        give_up "$(tail -n 5 "$TEST_DIR/without.log")"
    grep -q 'FAIL .*libibverbs.so.1 cannot be used.*Install rdma-core' "$TEST_DIR/without.log" || give_up "$(cat "$TEST_DIR/without.log")"
}

# `ogee doctor` in a binary with RDMA: all fine on rxe, a write to itself included; a port that is down, and a
# host without rdma-core, fail with what to do.
test_doctor_rdma() {
    local built=${CARGO_TARGET_DIR:-$REPO/target}/debug/ogee ogee=$TEST_DIR/ogee
    need_rdma_headers
    if [ "${OGEE_SKIP_BUILD:-0}" = 0 ]; then
        cargo clippy --quiet -p ogee-cli --features rdma --all-targets -- -D warnings || give_up "clippy"
        cargo test --quiet -p ogee-cli --features rdma --bins doctor >"$TEST_DIR/unit.log" 2>&1 || give_up "$(tail -n 20 "$TEST_DIR/unit.log")"
        cargo build --quiet -p ogee-cli --features rdma
    fi
    cp "$built" "$ogee"
    if ldd "$ogee" | grep -E 'ibverbs|rdmacm'; then give_up "it would not start without rdma-core"; fi
    lab_ends 0 --rdma --copy "$ogee:/usr/bin/ogee" --results "$TEST_DIR/results" --timeout 200 -- sh -c '
        ogee doctor --rdma -o json >/results/fine; echo $? >/results/fine.status
        ip link set dummy0 down
        ogee doctor --rdma --check rdma-port -o json >/results/down; echo $? >/results/down.status'
    [ "$(cat "$TEST_DIR/results/fine.status") $(cat "$TEST_DIR/results/down.status")" = "0 1" ] || give_up "$(cat "$TEST_DIR"/results/*)"
    jq -e '.rdma and .verdict == "ok" and ([.checks[] | select(.subject == "rxe0 port 1") | .name]
        == ["rdma-port", "rdma-mtu", "rdma-gid", "rdma-loopback"])' "$TEST_DIR/results/fine" >/dev/null || give_up "$(cat "$TEST_DIR/results/fine")"
    jq -e '.checks[] | select(.name == "rdma-gid") | .found | test("10\\.9\\.0\\.1 \\(RoCE v2\\)")' "$TEST_DIR/results/fine" >/dev/null ||
        give_up "another GID: $(grep RoCE "$TEST_DIR/results/fine")"
    jq -e '.checks[] | select(.name == "rdma-limits") | .found | test("max_qp [0-9]+")' "$TEST_DIR/results/fine" >/dev/null
    echo "   on rxe: $(jq -r '.checks[] | select(.name == "rdma-loopback") | .found' "$TEST_DIR/results/fine")"
    jq -e '.checks == [.checks[0]] and (.checks[0] | .verdict == "failed" and (.found | startswith("DOWN"))
        and .commands == ["ip link set dummy0 up"])' "$TEST_DIR/results/down" >/dev/null || give_up "$(cat "$TEST_DIR/results/down")"

    lab_ends 0 --copy "$ogee:/usr/bin/ogee" --results "$TEST_DIR/results" -- sh -c '
        ogee doctor --rdma -o json >/results/without; echo $? >/results/without.status; ogee doctor --check rdma-device --check rdma-libraries'
    [ "$(cat "$TEST_DIR/results/without.status")" = 1 ] || give_up "$(cat "$TEST_DIR/results/without")"
    jq -e '.checks[] | select(.name == "rdma-libraries") | .verdict == "failed"
        and (.found | contains("libibverbs.so.1")) and (.commands[0] | contains("rdma-core"))' "$TEST_DIR/results/without" >/dev/null ||
        give_up "$(cat "$TEST_DIR/results/without")"
}

# The transport's conformance suite over RDMA, and what only RDMA has, each case in a process of its own.
test_rdma_transport() {
    local binary=$WORK/rdma_conformance built guests status dead before="" from=""
    need_rdma_headers
    if [ "${OGEE_SKIP_BUILD:-0}" = 0 ]; then
        cargo clippy --quiet -p ogee-transport --features rdma --all-targets -- -D warnings || give_up "clippy"
        cargo test --quiet -p ogee-transport --features rdma --lib >"$TEST_DIR/unit.log" 2>&1 || give_up "$(tail -n 20 "$TEST_DIR/unit.log")"
        cargo test --quiet -p ogee-runtime --features readiness --test readiness >"$TEST_DIR/unit.log" 2>&1 || give_up "$(tail -n 20 "$TEST_DIR/unit.log")"
    fi
    built=$(cargo test --quiet -p ogee-transport --features rdma --test conformance --no-run --message-format=json 2>"$TEST_DIR/build.log" |
        jq -r 'select(.executable and .target.name == "conformance").executable') || give_up "$(tail -n 20 "$TEST_DIR/build.log")"
    # Its debug information would fill the guest's memory.
    objcopy --strip-debug "$built" "$binary"
    : >"$TEST_DIR/guest.log"
    # A guest whose rxe is dead, for rping too (lab_cases.sh), is replaced, a few times.
    for ((guests = 1; ; guests++)); do
        status=0
        "$LAB" run --rdma --memory 768M --copy "$binary:/usr/bin/conformance" --copy "$REPO/scripts/lib/lab_cases.sh:/root/lab_cases.sh" --timeout 600 -- \
            env OGEE_RDMA_ADDRESS=10.9.0.1 sh /root/lab_cases.sh /usr/bin/conformance 60 "$from" >"$TEST_DIR/one.log" 2>&1 || status=$?
        cat "$TEST_DIR/one.log" >>"$TEST_DIR/guest.log"
        dead=$(sed -n 's/^DEAD //p' "$TEST_DIR/one.log")
        if [ -z "$dead" ] || [ "$guests" = 4 ]; then break; fi
        echo "   guest $guests: rxe receives nothing any more, for rping either, at $dead"
        from=$dead
        if [ "$dead" = "$before" ]; then
            # It is this case that kills it.
            echo "   not proved on this kernel: $dead"
            from=after:$dead
        fi
        before=$dead
    done
    if [ "$status" != 0 ] || grep -q '^FAIL' "$TEST_DIR/guest.log"; then
        give_up "$(grep -v '^PASS' "$TEST_DIR/guest.log" | tail -n 20)"
    fi
    [ "$(grep -c '^PASS' "$TEST_DIR/guest.log")" -ge 40 ] || give_up "only some of them ran: $(tail -n 3 "$TEST_DIR/guest.log")"
    echo "   $(grep -c '^PASS' "$TEST_DIR/guest.log") cases on rxe"
}

# ---- RDMA: a cluster on it ----------------------------------------------------------------------

# Requests whose data is in the message, and requests whose data is moved by READ and WRITE.
RDMA_SIZES="4k 128k"

# rdma_release   $RDMA_OGEE: the release binary with RDMA; in $RDMA_EXAMPLES what docs/client.md shows, in C and in Rust
rdma_release() {
    local built=${CARGO_TARGET_DIR:-$REPO/target}/release
    RDMA_OGEE=$WORK/ogee-rdma RDMA_EXAMPLES=$WORK/examples
    need_rdma_headers
    need_packages gcc
    [ ! -e "$RDMA_OGEE" ] || return 0
    if [ "${OGEE_SKIP_BUILD:-0}" = 0 ]; then
        # One command: with other packages, what they share would be built once more.
        (cd "$REPO" && cargo build --release --quiet -p ogee-cli -p ogee-capi -p ogee-client --features ogee-cli/rdma,ogee-capi/rdma \
            --lib --bins --example blocks) || give_up "no build with RDMA"
    fi
    (OGEE_SKIP_BUILD=1 "$REPO/scripts/install-libogee" "$RDMA_EXAMPLES" >"$TEST_DIR/install.log" 2>&1) || give_up "$(tail -n 5 "$TEST_DIR/install.log")"
    cc -O1 -o "$RDMA_EXAMPLES/blocks_c" "$REPO/ffi/capi/examples/blocks.c" -I"$RDMA_EXAMPLES/include" -L"$RDMA_EXAMPLES/lib" -logee
    # Debug information would fill the guest's memory.
    objcopy --strip-debug "$built/examples/blocks" "$RDMA_EXAMPLES/blocks_rs"
    objcopy --strip-debug "$built/ogee" "$RDMA_OGEE"
}

# rdma_disk FILE   a file system for a guest's stores
rdma_disk() {
    truncate -s 1G "$1"
    mkfs.ext4 -q -F "$1"
}

# rdma_guests DISK OPTION... -- ARGUMENT...   options of a run of lab_rdma_cluster.sh, in $RUN_OPTIONS
rdma_guests() {
    RUN_OPTIONS=(--rdma --copy "$RDMA_OGEE:/usr/bin/ogee" --copy "$REPO/scripts/lib/lab_rdma_cluster.sh:/root/lab_rdma_cluster.sh"
        --tools jq --modules ext4)
    while [ "$1" != -- ]; do
        RUN_OPTIONS+=("$1")
        shift
    done
    shift
    # shellcheck disable=SC2206 # one word a size
    RUN_OPTIONS+=(-- env "EXAMPLES=${EXAMPLES:-}" "DISKS=${DISKS:-}" sh /root/lab_rdma_cluster.sh "$@" $RDMA_SIZES)
}

# grown NAME [FROM TO]   how much a counter of the guest grew, between two of its looks
grown() {
    awk -v name="$1" '$1 == name { at[FILENAME] = $2 } END { print at[ARGV[2]] - at[ARGV[1]] }' \
        "$RESULTS_HERE/${2:-before}" "$RESULTS_HERE/${3:-after}"
}

# The loads verified what they read; $MOVED: bytes of theirs that went from host to host, three times if written.
loads_verified() {
    local size file bytes
    MOVED=0
    for size in $RDMA_SIZES; do
        file=$RESULTS_HERE/load$size.json
        jq -e '.jobs[0] | .error == 0 and ."job options".verify == "1" and .write.io_bytes > 0 and .read.io_bytes > 0' "$file" >/dev/null ||
            give_up "load $size: $(jq -c '.jobs[0] | [.error, ."job options", .write.io_bytes, .read.io_bytes]' "$file")"
        bytes=$(jq '.jobs[0] | 3 * .write.io_bytes + .read.io_bytes' "$file")
        MOVED=$((MOVED + bytes))
        echo "   $size: $(jq -r '.jobs[0] | "\(.write.total_ios) written, \(.read.total_ios) read and verified, nothing answered for at most \(.longest_silence_ns / 1e6 | round) ms"' "$file")"
    done
    jq -e '.agree and (.copysets | length > 0)' "$RESULTS_HERE/check.json" >/dev/null || give_up "replicas differ: $(jq -c . "$RESULTS_HERE/check.json" | cut -c1-600)"
}

# A cluster on RDMA in one guest: verified loads, the leader killed under them and started again, nothing
# lost; and by the kernel's counters none of the data went over TCP. Over TCP the same counters say that all
# of it did. Over RDMA, then the examples of the client library.
test_rdma_cluster() {
    local transport name tcp packets copied written received sent EXAMPLES DISKS
    rdma_release
    for transport in rdma tcp; do
        RESULTS_HERE=$TEST_DIR/$transport EXAMPLES='' DISKS=''
        [ "$transport" = tcp ] || EXAMPLES="blocks_c blocks_rs" DISKS=1
        rdma_disk "$TEST_DIR/$transport.img"
        rdma_guests --copy "$RDMA_EXAMPLES/lib/libogee.so.0:/usr/lib/libogee.so.0" --copy "$RDMA_EXAMPLES/blocks_c:/usr/bin/blocks_c" --copy "$RDMA_EXAMPLES/blocks_rs:/usr/bin/blocks_rs" --disk "$TEST_DIR/$transport.img,cache=unsafe" --cpus 2 --memory 1536M --results "$RESULTS_HERE" --timeout 600 -- \
            "$transport" "$(ci_or_full 40 90)" 123
        lab_ends 0 "${RUN_OPTIONS[@]}"
        grep -q '^killing cs' "$TEST_DIR/lab.log" || give_up "no leader was killed"
        echo "   over $transport:"
        loads_verified
        tcp=$(grown ip_out_bytes) packets=$(grown rxe_sent_pkts)
        echo "   $MOVED bytes of loads moved: $tcp bytes over IP, $packets packets over RDMA"
        if [ "$transport" = tcp ]; then
            # What was written while the leader was away, perhaps again and again, reached that replica once.
            [ "$tcp" -ge $((MOVED / 2)) ] || give_up "the counter misses what goes over TCP: $tcp of $MOVED"
            continue
        fi
        [ "$tcp" -lt $((MOVED / 8)) ] || give_up "$tcp bytes over TCP, of $MOVED moved"
        [ $((packets * 4096)) -ge "$MOVED" ] || give_up "only $packets packets over RDMA for $MOVED bytes"
        for name in cs1 cs2 cs3; do
            awk -v all="${name}_connections" -v rdma="${name}_rdma_connections" '{ at[$1] = $2 } END { exit !(at[all] > 0 && at[all] == at[rdma]) }' "$RESULTS_HERE/after" ||
                give_up "$name has connections that are not over RDMA: $(grep connections "$RESULTS_HERE/after")"
        done
        examples_used_rdma
        disks_used_rdma
        # Until the leader was killed; what users keep for longer is copied out of registered memory.
        copied=$(grown_of_all received_copied_bytes) received=$(grown_of_all received_bytes)
        echo "   chunkservers received $received bytes, and copied $copied of them on the way in"
        [ "$copied" -lt $((received / 16)) ] || give_up "$copied bytes of $received were copied on the way in"
        # What a receive buffer was filled with is what the device is given: runtime's and log's tests compare the addresses.
        written=$(grown_of_all appended_bytes) copied=$(grown_of_all log_copied_bytes)
        echo "   logs wrote $written bytes of payloads, and copied $copied of them"
        [ "$copied" -lt $((written / 16)) ] || give_up "logs copied $copied bytes of $written"
        # What a device was read into, or a payload was received in, is sent from there.
        sent=$(grown_of_all sent_bytes) copied=$(grown_of_all sent_copied_bytes)
        echo "   chunkservers sent $sent bytes, and copied $copied of them on the way out; buffers that found no room: $(grown_of_all transfers_elsewhere)"
        [ "$copied" -lt $((sent / 8)) ] || give_up "$copied bytes of $sent were copied on the way out"
        [ "$(grown_of_all registrations_failed)" = 0 ] || give_up "memory could not be registered: $(grep registr "$RESULTS_HERE"/logs/*.log | tail -n 2)"
    done
}

# The examples read back what they wrote, and its bytes, 16 MiB each, went over RDMA to three replicas and back.
examples_used_rdma() {
    local name moved=0 tcp packets copied
    for name in $EXAMPLES; do
        grep -q '^wrote and read 25[06] pieces' "$RESULTS_HERE/$name.log" || give_up "$name said: $(tail -n 3 "$RESULTS_HERE/$name.log")"
        moved=$((moved + 250 * 65536 * 4))
    done
    tcp=$(grown ip_out_bytes before-examples after-examples) packets=$(grown rxe_sent_pkts before-examples after-examples)
    echo "   $EXAMPLES: $moved bytes moved, $tcp bytes over IP, $packets packets over RDMA"
    [ "$tcp" -lt $((moved / 8)) ] || give_up "examples: $tcp bytes over TCP, of $moved moved"
    [ $((packets * 4096)) -ge "$moved" ] || give_up "examples: only $packets packets over RDMA for $moved bytes"
    # The one in C registers its memory: 16 MiB are sent from there, and 16 MiB written to it by chunkservers.
    copied=$(sed -n 's/^copied \([0-9]*\) bytes$/\1/p' "$RESULTS_HERE/blocks_c.log")
    echo "   blocks_c copied $copied bytes of 32 MiB"
    [ "$copied" -lt $((4 << 20)) ] || give_up "blocks_c copied $copied bytes"
}

# A disk of a VM whose memory is registered: chunkservers write its reads into it. One whose memory is not has none of them there.
disks_used_rdma() {
    local name read moved tcp there copied
    for name in disk-registered disk-copied; do
        jq -e '.jobs[0] | .error == 0 and ."job options".verify == "1" and .write.io_bytes > 0 and .read.io_bytes > 0' "$RESULTS_HERE/$name.json" >/dev/null ||
            give_up "$name: $(jq -c '.jobs[0] | [.error, ."job options", .write.io_bytes, .read.io_bytes]' "$RESULTS_HERE/$name.json")"
        # What was verified in the end is read as well, and no part of the load.
        read=$(sed -n 's/.*served vhost-user until now.* read_bytes=\([0-9]*\).*/\1/p' "$RESULTS_HERE/$name.log")
        there=$(sed -n 's/.*shard_bytes_in_place=\([0-9]*\).*/\1/p' "$RESULTS_HERE/$name.log")
        copied=$(sed -n 's/.*read_bytes_copied=\([0-9]*\).*/\1/p' "$RESULTS_HERE/$name.log")
        moved=$(jq '.jobs[0] | 3 * .write.io_bytes + .read.io_bytes' "$RESULTS_HERE/$name.json")
        tcp=$(grown ip_out_bytes "before-$name" "after-$name")
        [ -n "$read" ] || give_up "$name: no counts: $(tail -n 3 "$RESULTS_HERE/$name.log")"
        echo "   $name: $moved bytes of its load moved, $tcp of them over IP; of $read bytes read $there came where the driver wants them, $copied were copied there"
        [ "$tcp" -lt $((moved / 8)) ] || give_up "$name: $tcp bytes over TCP, of $moved moved"
        [ "$read" -ge "$(jq '.jobs[0].read.io_bytes' "$RESULTS_HERE/$name.json")" ] || give_up "$name: the server counts only $read bytes"
        case $name in
        # The first ones come before the memory is registered, and some ask a replica that does not lead first.
        disk-registered) [ $((there * 8)) -ge $((read * 7)) ] || give_up "$name: only $there bytes of $read came without a copy" ;;
        *) [ "$there" = 0 ] || give_up "$name: $there bytes came to memory that is not registered" ;;
        esac
    done
}

# grown_of_all NAME   the same of all chunkservers, until the leader was killed
grown_of_all() {
    local name sum=0
    for name in cs1 cs2 cs3; do sum=$((sum + $(grown "${name}_$1" before under-load))); done
    echo "$sum"
}

# Two guests, and the second one is killed under load. It has one replica: I/O goes on without it. It has
# two: nothing is answered until it is back, and nothing is lost.
test_rdma_guest_lost() {
    local layout seconds
    seconds=$(ci_or_full 40 90)
    rdma_release
    for layout in 12:3 1:23; do
        RESULTS_HERE=$TEST_DIR/$layout
        rdma_disk "$TEST_DIR/$layout.1.img"
        rdma_disk "$TEST_DIR/$layout.2.img"
        rdma_guests --guests 2 --revive 1 --disk "1:$TEST_DIR/$layout.1.img,cache=unsafe" --disk "2:$TEST_DIR/$layout.2.img,cache=unsafe" \
            --memory 1280M --results "$RESULTS_HERE" --timeout 900 -- rdma "$seconds" "$layout"
        lab_start "${RUN_OPTIONS[@]}"
        wait_for 400 test -e "$RESULTS_HERE/loaded" || give_up "$layout: no load: $(tail -n 5 "$TEST_DIR/lab.log")"
        sleep $((seconds / 4))
        kill -9 "$(sed -n 2p "$TEST_DIR/pids")"
        : >"$RESULTS_HERE/lost"
        lab_end 0 900
        [ -e "$RESULTS_HERE/return" ] || give_up "$layout: the guest that was killed did not matter"
        echo "   $layout, and the second guest killed:"
        loads_verified
    done
}

# ---- RDMA: what it costs ------------------------------------------------------------------------

# Virtual time counts instructions, so it repeats: a request of 4 KiB with its answer of 64 bytes over our transport, beside
# perftest, which prints half a round trip, of 4 KiB and of 64 bytes. Ours costs at most RDMA_COST_MAX times the two halves, and
# not more than is recorded in perf/rdma_cost.txt and TOLERANCE percent (default 5). RECORD=1 records it.
RDMA_COST_MAX=1.5
test_rdma_cost() {
    local built=${CARGO_TARGET_DIR:-$REPO/target}/release/examples/rdma_cost binary=$TEST_DIR/binary table=$REPO/perf/rdma_cost.txt
    local of large small ours ratio recorded
    need_rdma_headers
    need_packages perftest
    if [ "${OGEE_SKIP_BUILD:-0}" = 0 ]; then
        (cd "$REPO" && cargo build --release --quiet -p ogee-transport --features rdma --example rdma_cost) || give_up "no build with RDMA"
    fi
    objcopy --strip-debug "$built" "$binary"
    lab_ends 0 --icount --rdma --memory 512M --tools ib_send_lat --copy "$binary:/usr/bin/rdma_cost" \
        --copy "$REPO/scripts/lib/lab_rdma_cost.sh:/root/lab_rdma_cost.sh" --timeout 600 -- sh /root/lab_rdma_cost.sh 2000
    large=$(sed -n 's/^perftest 4096 //p' "$TEST_DIR/lab.log") small=$(sed -n 's/^perftest 64 //p' "$TEST_DIR/lab.log")
    ours=$(sed -n 's/^ours [^ ]* \([^ ]*\) .*/\1/p' "$TEST_DIR/lab.log")
    ratio=$(awk -v ours="$ours" -v large="$large" -v small="$small" 'BEGIN { if (ours > 0 && large > 0 && small > 0) printf "%.3f", ours / (large + small) }')
    [ -n "$ratio" ] || give_up "no figures: $(tail -n 5 "$TEST_DIR/lab.log")"
    echo "   4 KiB and back 64 bytes: $ours us of virtual time; perftest, half a round trip: $large us of 4 KiB, $small us of 64 bytes; ratio $ratio"
    of="$(rustc --version), Linux $("$LAB" kernel 2>/dev/null), perftest $(dpkg-query -W -f='${Version}' perftest)"
    if [ "${RECORD:-0}" = 1 ]; then
        {
            echo "# Microseconds of virtual time, 2 ns an instruction, by RECORD=1 ONLY=rdma_cost scripts/test lab."
            echo "# of: $of"
            echo "request $ours"
        } >"$table"
        return 0
    fi
    awk -v ratio="$ratio" -v max="$RDMA_COST_MAX" 'BEGIN { exit !(ratio <= max) }' || give_up "$ratio times perftest, at most $RDMA_COST_MAX"
    [ "$(sed -n 's/^# of: //p' "$table")" = "$of" ] ||
        give_skip "perf/rdma_cost.txt is of other programs than $of: $ratio times perftest, and no older figure to compare with (RECORD=1)"
    recorded=$(sed -n 's/^request //p' "$table")
    awk -v ours="$ours" -v recorded="$recorded" -v tolerance="${TOLERANCE:-5}" 'BEGIN { exit !(recorded > 0 && ours * 100 <= recorded * (100 + tolerance)) }' ||
        give_up "$ours us, recorded $recorded: make it cheaper, or record it and say why (RECORD=1)"
    echo "   recorded: $recorded us"
}

# What building with the feature `verbs` wants; rdma-sys's generator knows libclang 14.
need_rdma_headers() {
    need_packages libibverbs-dev librdmacm-dev libclang1-14 libclang-common-14-dev
    LIBCLANG_PATH=$(dirname "$(dpkg -L libclang1-14 | grep -m 1 '/llvm-14/lib/libclang')")
    export LIBCLANG_PATH
}

# ---- NVMe without the kernel -------------------------------------------------------------------

# Skips the test where no SPDK is installed: it is in no package registry.
need_spdk() {
    pkg-config --exists spdk_nvme spdk_env_dpdk ||
        give_skip "SPDK not installed (pkg-config finds no spdk_nvme: PKG_CONFIG_PATH)"
}

# The tests on a drive that is to be lost, as $WORK/nvme_drive.
build_nvme_drive() {
    local built
    built=$(cargo test --quiet --release -p ogee-device --features conformance,spdk --test nvme_drive --no-run --message-format=json 2>"$TEST_DIR/build.log" |
        jq -r 'select(.executable and .target.name == "nvme_drive").executable') || give_up "$(tail -n 20 "$TEST_DIR/build.log")"
    objcopy --strip-debug "$built" "$WORK/nvme_drive"
}

# The device suite on an emulated controller, through SPDK: bound to uio, to vfio behind an IOMMU, there polled and waited for by
# interrupts, and with sectors of 4096 bytes.
test_spdk_nvme() {
    local what driver sector wait drive binary=$WORK/nvme_drive image=/dev/shm/ogee-lab-nvme.$$.img options
    need_spdk
    build_nvme_drive
    defer rm -f "$image"
    for what in "uio_pci_generic 512 poll" "vfio-pci 512 poll" "vfio-pci 512 interrupt" "uio_pci_generic 4096 poll"; do
        read -r driver sector wait <<<"$what"
        # On tmpfs: on a disk, reads swing wildly.
        rm -f "$image"
        truncate -s 8M "$image"
        drive="-drive file=$image,if=none,id=n0,format=raw,discard=unmap -device nvme,drive=n0,serial=ogee0,logical_block_size=$sector,physical_block_size=$sector"
        options=(--modules "nvme uio_pci_generic")
        [ "$driver" = uio_pci_generic ] || options=(--iommu --modules "nvme vfio-pci vfio_iommu_type1")
        lab_ends 0 --memory 1024M --cpus 2 "${options[@]}" --copy "$binary:/usr/bin/nvme_drive" --copy "$REPO/scripts/lib/lab_spdk.sh:/root/lab_spdk.sh" \
            --qemu "$drive" --timeout 500 -- \
            env OGEE_NVME_SERIAL=ogee0 OGEE_NVME_WAIT="$wait" sh /root/lab_spdk.sh "$driver" 192 nvme_drive --ignored --test-threads=1 --nocapture --skip cost
        grep -q '^test result: ok. 2[0-9] passed' "$TEST_DIR/lab.log" || give_up "only some ran: $(tail -n 3 "$TEST_DIR/lab.log")"
        echo "   $driver, sectors of $sector, $wait: $(grep '^test result' "$TEST_DIR/lab.log")"
        sed -n 's/.*rate: /   /p' "$TEST_DIR/lab.log"
    done
}

# What a request costs without the kernel, and through its driver: 4 KiB, 16 at a time, of a drive that answers at once, in virtual time
# that counts instructions. Without the kernel it must cost less. Polling looks as often as the host's QEMU lets it wait, so its
# figures, unlike the others', do not repeat exactly.
test_spdk_cost() {
    local guest kind way uring each drive="-drive driver=null-co,size=8M,read-zeroes=on,if=none,id=n0 -device nvme,drive=n0,serial=ogee0" options
    need_spdk
    build_nvme_drive
    for guest in "uio_pci_generic poll" "vfio-pci poll interrupt"; do
        options=(--modules "nvme uio_pci_generic")
        [ "${guest%% *}" = uio_pci_generic ] || options=(--iommu --modules "nvme vfio-pci vfio_iommu_type1")
        # shellcheck disable=SC2086 # words
        lab_ends 0 --icount --memory 1024M "${options[@]}" --copy "$WORK/nvme_drive:/usr/bin/nvme_drive" --copy "$REPO/scripts/lib/lab_spdk.sh:/root/lab_spdk.sh" \
            --copy "$REPO/scripts/lib/lab_spdk_cost.sh:/root/lab_spdk_cost.sh" --qemu "$drive" --timeout 500 -- sh /root/lab_spdk_cost.sh 4000 $guest
        for kind in read write; do
            uring=$(sed -n "s/^cost uring $kind //p" "$TEST_DIR/lab.log")
            for way in ${guest#* }; do
                each=$(sed -n "s/^cost $way $kind //p" "$TEST_DIR/lab.log")
                { [ "${uring:-0}" -gt 0 ] && [ "${each:-0}" -gt 0 ]; } || give_up "no figures: $(tail -n 5 "$TEST_DIR/lab.log")"
                echo "   ${guest%% *}, $kind: $((each / 2)) instructions a request, $way; $((uring / 2)) through the kernel"
                # Waiting for interrupts spares the processor to others, not instructions to a request.
                [ "$way" = interrupt ] || [ "$each" -lt "$uring" ] || give_up "$way costs $each ns, the kernel's driver $uring"
            done
        done
    done
}

# ogee device ls --local|prepare|release|health, in a guest with two drives behind an IOMMU: what is in use is refused,
# what is not changes its driver and back, and is found by its serial number after a boot.
test_nvme_prepare() {
    local at image=/dev/shm/ogee-lab-prepare.$$ drives=''
    for at in 0 1; do
        truncate -s 64M "$image.$at"
        defer rm -f "$image.$at"
        drives+=" -drive file=$image.$at,if=none,id=n$at,format=raw -device nvme,drive=n$at,serial=ogee$at"
    done
    lab_ends 0 --memory 768M --iommu --modules "nvme vfio-pci vfio_iommu_type1 ext4" --ogee --tools "jq wipefs mke2fs" \
        --copy "$REPO/scripts/lib/lab_drive.sh:/root/lab_drive.sh" --timeout 300 --qemu "$drives" -- sh /root/lab_drive.sh
    grep -q '^drives: all is well$' "$TEST_DIR/lab.log" || give_up "$(tail -n 20 "$TEST_DIR/lab.log")"
    sed -n 's/^drives: /   /p' "$TEST_DIR/lab.log"
}

# Three chunkservers in a guest, each on an NVMe controller of its own: a verified load, the leader killed under it and started
# again; another one, under which a leader's controller is reset by the kernel; nothing is lost, and the replicas agree. The third drive
# is named by its serial number alone, and tells its health.
test_spdk_cluster() {
    local at image=/dev/shm/ogee-lab-nvme.$$ drives='' ogee=$WORK/ogee-spdk
    RESULTS_HERE=$TEST_DIR/results
    need_spdk
    if [ "${OGEE_SKIP_BUILD:-0}" = 0 ]; then
        (cd "$REPO" && cargo build --release --quiet -p ogee-cli --features spdk) || give_up "no build with SPDK"
    fi
    objcopy --strip-debug "${CARGO_TARGET_DIR:-$REPO/target}/release/ogee" "$ogee"
    defer rm -f "$image.1" "$image.2" "$image.3"
    for at in 1 2 3; do
        truncate -s 192M "$image.$at"
        drives+=" -drive file=$image.$at,if=none,id=n$at,format=raw,discard=unmap -device nvme,drive=n$at,serial=ogee$at"
    done
    lab_ends 0 --memory 2560M --cpus 2 --modules "nvme uio_pci_generic" --copy "$ogee:/usr/bin/ogee" --tools jq \
        --copy "$REPO/scripts/lib/lab_spdk.sh:/root/lab_spdk.sh" --copy "$REPO/scripts/lib/lab_spdk_cluster.sh:/root/lab_spdk_cluster.sh" \
        --results "$RESULTS_HERE" --qemu "$drives" --timeout 1500 -- \
        sh /root/lab_spdk.sh uio_pci_generic 160 sh /root/lab_spdk_cluster.sh 60
    grep -q '^killing cs' "$TEST_DIR/lab.log" || give_up "no leader was killed"
    grep -q '^resetting the controller of cs' "$TEST_DIR/lab.log" || give_up "no controller was reset"
    for at in load reset; do
        jq -e '.jobs[0] | .error == 0 and ."job options".verify == "1" and .write.io_bytes > 0 and .read.io_bytes > 0' "$RESULTS_HERE/$at.json" >/dev/null ||
            give_up "$at: $(jq -c '.jobs[0] | [.error, ."job options", .write.io_bytes, .read.io_bytes]' "$RESULTS_HERE/$at.json")"
        echo "   $at: $(jq -r '.jobs[0] | "\(.write.total_ios) written, \(.read.total_ios) read and verified, nothing answered for at most \(.longest_silence_ns / 1e6 | round) ms"' "$RESULTS_HERE/$at.json")"
    done
    for at in check check2; do
        jq -e '.agree and (.copysets | length > 0)' "$RESULTS_HERE/$at.json" >/dev/null || give_up "replicas differ: $(jq -c . "$RESULTS_HERE/$at.json" | cut -c1-600)"
    done
    grep -q '^ *warnings *none' "$RESULTS_HERE/health.txt" || give_up "the health page: $(cat "$RESULTS_HERE/health.txt")"
    grep -q '^ogee_chunkserver_nvme_temperature_celsius{.*} [0-9]' "$RESULTS_HERE/metrics.txt" || give_up "metrics: $(cat "$RESULTS_HERE/metrics.txt")"
}

# ---- the group ---------------------------------------------------------------------------------

need_packages qemu-system-x86 busybox-static cpio kmod binutils dmsetup e2fsprogs qemu-utils socat jq python3
build_for_tests
POWER_CUT=$(dirname "$OGEE")/examples/power_cut
begin_group lab
install -m 755 "$POWER_CUT" "$WORK/power_cut"
POWER_CUT=$WORK/power_cut

when_asked lab_ends 300 test_lab_ends
run_test lab_two_guests 150 test_lab_two_guests
run_test lab_rdma 150 test_lab_rdma
when_asked lab_icount 400 test_lab_icount
run_test rdma_verbs 400 test_rdma_verbs
when_asked doctor_rdma 900 test_doctor_rdma
when_asked rdma_transport 1800 test_rdma_transport
when_asked rdma_cost 900 test_rdma_cost
# That it cannot run here is told in every run, and counted.
if pkg-config --exists spdk_nvme 2>/dev/null; then when_asked spdk_nvme 1800 test_spdk_nvme; else run_test spdk_nvme 60 test_spdk_nvme; fi
if pkg-config --exists spdk_nvme 2>/dev/null; then when_asked spdk_cost 1800 test_spdk_cost; else run_test spdk_cost 60 test_spdk_cost; fi
when_asked nvme_prepare 400 test_nvme_prepare
when_asked spdk_cluster 2400 test_spdk_cluster
when_asked rdma_cluster 1800 test_rdma_cluster
when_asked rdma_guest_lost 3600 test_rdma_guest_lost
run_test lossy_disk 60 test_lossy_disk
run_test power_killed "$(ci_or_full 900 4000)" test_power_killed
when_asked power_log_writes 1800 test_power_log_writes
when_asked power_flakey "$(ci_or_full 400 1200)" test_power_flakey
