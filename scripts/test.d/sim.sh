# shellcheck shell=bash
# The simulator: seeds replay exactly, the regression seeds are good, the seeded bugs are found, and fresh
# seeds are good. And the inputs that fuzzing has kept, each once.
#
# The slice takes fresh seeds for OGEE_SIM_SECONDS (wall time; by default 20 minutes of processor time), or
# until it is told to end, and no more than OGEE_SIM_SEEDS; the full run takes OGEE_SIM_SEEDS of them (default 2000)
# however long that is. OGEE_SIM_FIRST is the first fresh seed: by default another one every day, printed, so
# that a failure can be replayed. `scripts/test` without names sets all three.
set -euo pipefail
. scripts/lib/common.sh

jobs=$(nproc)
first=${OGEE_SIM_FIRST:-$((10#$(date +%Y%m%d) * 10000))}
if [ "$FULL" = 1 ]; then replays=20 fresh=(--seeds "${OGEE_SIM_SEEDS:-2000}"); else
    replays=5
    fresh=(--seeds "${OGEE_SIM_SEEDS:-100000}" --budget "${OGEE_SIM_SECONDS:-$((1200 / jobs))}" --until "$RESULTS/hurry")
fi

say "building the simulator"
scripts/sim --seeds 1 --seed 1 --quiet
export OGEE_SKIP_BUILD=1
sim=${CARGO_TARGET_DIR:-$REPO/target}/sim/sim/ogee-sim

# Here and not in scripts/verify: it checks every dependency once more, which wants nothing but processor time. The gate leaves out
# the targets of fuzzing, which are little and bring the whole control plane with them.
say "lints of what only the simulator compiles"
linted=(-p ogee-sim)
[ "${OGEE_SIM_SEEDS:-}" = 0 ] || linted+=(-p ogee-fuzz)
if RUSTFLAGS="--cfg ogee_sim" cargo clippy --quiet --profile sim --target-dir "${CARGO_TARGET_DIR:-$REPO/target}/sim" "${linted[@]}" -- -D warnings; then
    echo "sim: lints" >>"$RESULTS/passed"
else
    echo "sim: lints: above" >>"$RESULTS/failed"
fi

say "the inputs that fuzzing has kept"
if "${sim%/*}/ogee-fuzz-replay" dataplane/fuzz/corpus >"$RESULTS/replay"; then
    sed 's/^/fuzz: /' "$RESULTS/replay" | tee -a "$RESULTS/passed"
else
    echo "fuzz: a kept input fails: its name and the panic are above" >>"$RESULTS/failed"
fi

say "a seed is the same alone, again, and among others ($replays seeds)"
runs=$(mktemp -d "${TMPDIR:-/tmp}/ogee-sim-replay.XXXXXX")
trap 'rm -rf "$runs"' EXIT
last=$((first + replays - 1))
seq "$first" "$last" | xargs -P "$jobs" -I '{}' sh -c "$sim --seed {} >$runs/{}.together 2>/dev/null || true"
for seed in $(seq "$first" "$last"); do
    "$sim" --seed "$seed" >"$runs/$seed.alone" 2>/dev/null || true
    if cmp -s "$runs/$seed.alone" "$runs/$seed.together"; then
        echo "sim: seed $seed replays" >>"$RESULTS/passed"
    else
        diff "$runs/$seed.alone" "$runs/$seed.together" | head -5
        echo "sim: seed $seed does not replay" >>"$RESULTS/failed"
    fi
done

# tally NAME ARGUMENT...   runs seeds and counts them as tests
tally() {
    local name=$1 out=$runs/out
    shift
    scripts/sim --jobs "$jobs" --quiet "$@" | tee "$out" || true
    local passed failed
    read -r passed failed < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$out") || true
    [ -n "${failed:-}" ] || {
        echo "sim: $name did not end" >>"$RESULTS/failed"
        return 0
    }
    [ ! -e "$RESULTS/hurry" ] || echo "$name: so many only, for the time was up"
    [ "$passed" = 0 ] || seq -f "sim: $name %g" "$passed" >>"$RESULTS/passed"
    [ "$failed" = 0 ] || sed -n "s/^failed seeds: /sim: $name, seeds /p" "$out" >>"$RESULTS/failed"
}

say "regression seeds"
while read -r seed _; do
    case $seed in '' | '#'*) continue ;; esac
    tally "regression seed $seed," --seeds 1 --seed "$seed" </dev/null
done <dataplane/sim/seeds.txt

say "seeded bugs: the seed recorded for each, with it and without"
scripts/sim bugs --seeds 60 --jobs "$jobs" --until "$RESULTS/hurry" | tee "$runs/bugs" || true
sed -n 's/^\([a-z0-9-]*\) [0-9]*: found.*/sim: seeded bug \1/p' "$runs/bugs" >>"$RESULTS/passed"
sed -n 's/^\([a-z0-9-]*\) [0-9]*: NOT FOUND.*/sim: seeded bug \1/p' "$runs/bugs" >>"$RESULTS/failed"
sed -n 's/^\([0-9]* were not replayed.*\)/sim: seeded bugs, \1/p' "$runs/bugs" >>"$RESULTS/skipped"
grep -q '^[0-9]* passed, [0-9]* failed$' "$runs/bugs" || echo "sim: the seeded bugs did not end" >>"$RESULTS/failed"

say "fresh seeds from $first"
tally "fresh seed" --seed "$first" "${fresh[@]}"
