# shellcheck shell=bash
# The static gate. In a folder of its own: beside others it would keep their builds waiting for its locks.
set -euo pipefail
. scripts/lib/common.sh
target=${CARGO_TARGET_DIR:-$REPO/target}
if CARGO_TARGET_DIR=$target/verify scripts/verify; then
    echo "verify" >>"$RESULTS/passed"
else
    echo "verify: above" >>"$RESULTS/failed"
fi
