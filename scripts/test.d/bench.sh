#!/usr/bin/env bash
# `ogee bench` runs every load and reports with fio's keys. No bars but instruction counts: figures are
# compared in perf/.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$REPO/scripts/lib/cluster.sh"
cd "$REPO"

# The side's keys are all there, as numbers, whether or not it was used.
# shellcheck disable=SC2016 # jq's variables
SIDE='def side: (.iops, .bw_bytes, .lat_ns.mean, .lat_ns.percentile["50.000000"], .lat_ns.percentile["99.000000"], .lat_ns.percentile["99.900000"]) | type == "number";'

test_bench() {
    cluster_up
    create_volume load --size 1GiB
    local rw reads writes
    for rw in write randwrite read randread randrw; do
        "$OGEE" bench load --rw "$rw" --bs 4k --iodepth 32 --runtime 2 -o json >"$TEST_DIR/$rw.json" 2>"$TEST_DIR/$rw.log" ||
            give_up "bench --rw $rw: $(tail -n 3 "$TEST_DIR/$rw.log")"
        jq -e "$SIDE (.jobs | length == 1) and all(.jobs[0].read, .jobs[0].write; all(side; .))" "$TEST_DIR/$rw.json" >/dev/null ||
            give_up "bench --rw $rw does not have fio's keys: $(head -c 600 "$TEST_DIR/$rw.json")"
        reads=$(jq '.jobs[0].read.iops | floor' "$TEST_DIR/$rw.json")
        writes=$(jq '.jobs[0].write.iops | floor' "$TEST_DIR/$rw.json")
        echo "   $rw: read $reads IOPS, write $writes IOPS, p99 $(jq -c '[.jobs[0].read, .jobs[0].write] | map(.lat_ns.percentile["99.000000"] / 1000 | floor)' "$TEST_DIR/$rw.json") us"
        # What the load does not do must not be counted.
        jq -e --arg rw "$rw" '.jobs[0] | (.read.iops > 0) == ($rw | test("read|rw")) and (.write.iops > 0) == ($rw | test("write|rw"))' \
            "$TEST_DIR/$rw.json" >/dev/null || give_up "bench --rw $rw: read $reads IOPS, write $writes IOPS"
    done
    "$OGEE" bench load --rw randwrite --runtime 1 >"$TEST_DIR/table" || give_up "no table"
    grep -qi 'iops' "$TEST_DIR/table" || give_up "the table shows no IOPS"
    copysets_agree
}

# Instructions per step of the data path, which do not depend on what else the machine does.
test_cost() {
    local code=0
    "$REPO/scripts/cost" >"$TEST_DIR/cost" 2>&1 || code=$?
    sed 's/^/   /' "$TEST_DIR/cost"
    case $code in
    0) ;;
    77) give_skip "$(tail -n 1 "$TEST_DIR/cost")" ;;
    *) give_up "a step of the data path costs more than it did: $(grep -E 'too much|FAILED' "$TEST_DIR/cost" | head -n 3)" ;;
    esac
}

# The other kinds of target, open loop, outputs and comparison.
test_harness() {
    cluster_up
    create_volume load --size 256MiB
    local dir=$TEST_DIR raw=$TEST_DIR/raw.img socket=$TEST_DIR/load.sock
    bench() { "$OGEE" bench "$@" 2>>"$dir/bench.log" || give_up "bench $*: $(tail -n 3 "$dir/bench.log")"; }
    if "$OGEE" bench load --bssplit 4k/80:16k/20 --verify --runtime 1 >/dev/null 2>"$dir/refused.log"; then
        give_up "verify of mixed sizes was not refused"
    fi
    bench load --rw rw --bssplit 4k/80:16k/20 --random-distribution zipf:1.1 --rate 20m --runtime 1 >/dev/null
    bench load --arrival-rate 300 --rate-process poisson --iodepth 32 --rw randrw --runtime 3 --verify \
        --dev-dir "$DIR" --json "$dir/open.json" --csv "$dir/open.csv" --html "$dir/open.html" >/dev/null
    jq -e '.jobs[0] | .series | length >= 3' "$dir/open.json" >/dev/null || give_up "no series"
    jq -e '.jobs[0].cpu | .server_us_per_io > 0 and (.processes | length) == 4' "$dir/open.json" >/dev/null ||
        give_up "no CPU of the servers: $(jq -c '.jobs[0].cpu' "$dir/open.json")"
    grep -q '</html>' "$dir/open.html" || give_up "no page"
    [ "$(wc -l <"$dir/open.csv")" -ge 4 ] || give_up "no CSV"
    truncate -s 64M "$raw"
    if "$OGEE" bench "raw:$raw" --rw write --runtime 1 >/dev/null 2>&1; then
        give_up "a raw target was overwritten without --yes"
    fi
    bench "raw:$raw" --rw randrw --bs 16k --iodepth 8 --runtime 1 --verify --sync dsync --yes >/dev/null
    "$OGEE" export nbd load --socket "$socket" >"$dir/nbd.log" 2>&1 &
    local export=$!
    defer kill "$export"
    for _ in $(seq 100); do [ -S "$socket" ] || sleep 0.1; done
    bench "nbd+unix:///load?socket=$socket" --rw randrw --bs 64k --iodepth 16 --runtime 2 --verify --json "$dir/nbd.json" >/dev/null
    kill "$export"
    wait "$export" || true
    bench load --scenario 4k-randread-qd1 --runtime 1 --ramp-time 0 --json "$dir/a.json" >/dev/null
    bench compare "$dir/a.json" "$dir/a.json" --check | grep -q 'within noise' || give_up "a run differs from itself"
    bench ab --a-target load --b-target "raw:$raw" --rounds 3 -- --rw randread --runtime 1 | grep -q 'min..max' || give_up "no rounds"
}

need_packages jq
build_for_tests
begin_group bench
run_test bench 90 test_bench
run_test cost 500 test_cost
run_test harness 120 test_harness
