# shellcheck shell=bash
# Every package's own tests. Real clients (libnbd, qemu, fio) are used where a test wants them.
#
# Cargo builds the test programs and would run one after the other, although most of them wait for most of their time.
# Here the longest, a third of it all, run one after the other beside all others. Then the examples in the docs.
set -euo pipefail
. scripts/lib/common.sh
need_rust
need_packages gcc make libc6-dev fio libnbd-bin qemu-utils jq
outs=$RESULTS/unit
mkdir "$outs"

# The package whose tests look at speed and at bounds of time: no two of its programs at a time.
LONGEST=dataplane/group

# programs   three lines each: directory, program, name
programs() {
    cargo test --workspace --quiet --no-run --message-format json-render-diagnostics |
        jq -r 'select(.reason == "compiler-artifact" and .profile.test and .executable)
            | (.manifest_path | rtrimstr("/Cargo.toml")), .executable, .target.name'
}

# run_programs longest|others   those of the longest package, or all others; a line for each when it has ended
run_programs() {
    local lane dir program name out start status
    while read -r dir && read -r program && read -r name; do
        if [ "$dir" = "$REPO/$LONGEST" ]; then lane=longest; else lane=others; fi
        [ "$lane" = "$1" ] || continue
        out=$outs/$name.${program##*-} start=$SECONDS status=0
        (cd "$dir" && "$program" </dev/null >"$out" 2>&1) || status=$?
        # One that ends without a word about it failed as a whole.
        [ "$status" = 0 ] || grep -qE '^test .* \.\.\. FAILED$' "$out" || echo "test $name as a whole, which ended with $status ... FAILED" >>"$out"
        echo "${dir#"$REPO"/}: $name: $(sed -n 's/^test result: \(.*\); 0 measured.*/\1/p' "$out"), $((SECONDS - start)) s"
        if [ "$status" != 0 ]; then tail -n 60 "$out"; fi
    done <"$RESULTS/programs"
}

if ! programs >"$RESULTS/programs" || [ ! -s "$RESULTS/programs" ]; then
    echo "the tests do not build: above" >>"$RESULTS/failed"
    exit 0
fi
# What later groups start is built meanwhile, on what is left of the processor, before the simulator, which has more time. Where
# that fails, the first of them says why.
building=
if [ "${BUILD_AHEAD:-0}" = 1 ]; then
    (renice -n 19 -p $BASHPID >/dev/null && build_for_tests) >"$RESULTS/ahead" 2>&1 &
    building=$!
fi
run_programs longest &
longest=$!
run_programs others
wait "$longest"
cargo test --workspace --doc >"$outs/docs" 2>&1 || {
    grep -qE '^test .* \.\.\. FAILED$' "$outs/docs" || echo "test the documentation ... FAILED" >>"$outs/docs"
    tail -n 60 "$outs/docs"
}

if [ -n "$building" ]; then
    hurry "$building"
    wait "$building" || true
fi

# Counted test by test, from the programs' own lines.
cat "$outs"/* >"$RESULTS/unit.out"
grep -E '^test .* \.\.\. ok$' "$RESULTS/unit.out" >>"$RESULTS/passed" || true
grep -E '^test .* \.\.\. FAILED$' "$RESULTS/unit.out" >>"$RESULTS/failed" || true
grep -E '^test .* \.\.\. ignored' "$RESULTS/unit.out" >>"$RESULTS/skipped" || true
grep -hE '^SKIP' "$RESULTS/unit.out" >>"$RESULTS/skipped" || true
