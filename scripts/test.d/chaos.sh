#!/usr/bin/env bash
# Chaos on real processes in network namespaces; scripts/chaos runs each of these alone and longer.
# docs/reliability.md says what is proved.   ONLY="nemesis" KEEP=1 SEED=7 scripts/test chaos
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$REPO/scripts/lib/cluster.sh"
# shellcheck source=scripts/lib/chaos.sh
. "$REPO/scripts/lib/chaos.sh"
# shellcheck source=scripts/lib/heal.sh
. "$REPO/scripts/lib/heal.sh"
# shellcheck source=scripts/lib/six_nodes.sh
. "$REPO/scripts/lib/six_nodes.sh"
# shellcheck source=scripts/lib/slow_disk.sh
. "$REPO/scripts/lib/slow_disk.sh"
# shellcheck source=scripts/lib/nemesis.sh
. "$REPO/scripts/lib/nemesis.sh"
cd "$REPO"

chaos_begin
run_test kills "$(ci_or_full 400 9000)" chaos_kills "$(ci_or_full 20 300)"
run_test nemesis "$(ci_or_full 400 5400)" chaos_nemesis "$(ci_or_full 11 66)"
for fault in kill stop cut peers; do
    run_test "gap_$fault" "$(ci_or_full 200 1800)" chaos_gap "$fault" "$(ci_or_full 5 30)"
done
run_test flips "$(ci_or_full 300 1200)" chaos_flips "$(ci_or_full 500 1000)"
run_test six_nodes "$(ci_or_full 900 1700)" chaos_six_nodes
