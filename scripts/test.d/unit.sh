# shellcheck shell=bash
# Every package's own tests. Real clients (libnbd, qemu, fio) are used where a test wants them.
set -euo pipefail
. scripts/lib/common.sh
need_packages gcc make libc6-dev fio libnbd-bin qemu-utils
out=$RESULTS/unit.out
set +e
cargo test --workspace --no-fail-fast 2>&1 | tee "$out" | grep --line-buffered -E '^(test result|failures:|error|SKIP|    [a-z_:]+$)|FAILED|panicked'
status=${PIPESTATUS[0]}
set -e
# Counted test by test, from cargo's own lines.
grep -E '^test .* \.\.\. ok$' "$out" >>"$RESULTS/passed" || true
grep -E '^test .* \.\.\. FAILED$' "$out" >>"$RESULTS/failed" || true
grep -E '^test .* \.\.\. ignored' "$out" >>"$RESULTS/skipped" || true
grep -hE '^SKIP' "$out" >>"$RESULTS/skipped" || true
[ "$status" = 0 ] || {
    # A test that failed is counted already; a build that failed is not.
    [ -s "$RESULTS/failed" ] || echo "cargo test ended with $status" >>"$RESULTS/failed"
    tail -n 40 "$out"
}
