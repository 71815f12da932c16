#!/usr/bin/env bash
# Fuzzing from the kept corpus: FUZZ_SECONDS over all targets together (600), or, in the full run, two
# hours for each.   FUZZ_SECONDS=60 scripts/test fuzz
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
cd "$REPO"
need_packages g++ libc6-dev
need_rust

mapfile -t targets < <(scripts/fuzz --list)
each=$((${FUZZ_SECONDS:-600} / ${#targets[@]}))
[ "${FULL:-0}" != 1 ] || each=7200

scripts/fuzz --seconds "$each" 2>&1 | tee "$RESULTS/fuzz.out" || true
sed -n 's/^PASS /fuzz /p' "$RESULTS/fuzz.out" >>"$RESULTS/passed"
sed -n 's/^FAIL /fuzz /p' "$RESULTS/fuzz.out" >>"$RESULTS/failed"
# A target that says neither did not run.
for target in "${targets[@]}"; do
    grep -qE "^(PASS|FAIL) $target:" "$RESULTS/fuzz.out" || echo "fuzz $target: did not run" >>"$RESULTS/failed"
done
