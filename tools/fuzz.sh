#!/usr/bin/env bash
# Feeds damaged files to the readers of foreign files (libFuzzer, ASan, UBSan) and says how many. What it finds lies in build/fuzz/found.
# usage: tools/fuzz.sh [--minutes 10] [TARGET…]      without a target all of tests/fuzz/targets.cpp, one after the other
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "fuzz: $2" >&2; exit "$1"; }

minutes=10
targets=()
while (($# > 0)); do
  case "$1" in
    --minutes) (($# > 1)) || fail 2 "--minutes needs a number"; minutes=$2; shift 2 ;;
    -h | --help) sed -n '2,3s/^# //p' tools/fuzz.sh; exit 0 ;;
    -*) fail 2 "unknown option '$1' (tools/fuzz.sh --help)" ;;
    *) targets+=("$1"); shift ;;
  esac
done
[[ $minutes =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail 2 "--minutes must be a number, got '$minutes'"
command -v clang++ >/dev/null || fail 5 "clang++ is absent; install clang and libclang-rt-14-dev"

build=build/fuzz
cmake -S tests/fuzz -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=None >/dev/null || fail 70 "cmake could not configure tests/fuzz"
cmake --build "$build" --parallel || fail 70 "the fuzzer does not build (libFuzzer comes with Debian's libclang-rt-14-dev)"
((${#targets[@]} > 0)) || mapfile -t targets < <(LANGCELL_FUZZ=list "$build/fuzz" | sort -u)
python3 tests/fuzz/make_seeds.py "$build/seeds"
mkdir -p "$build/found"

status=0
for target in "${targets[@]}"; do
  mkdir -p "$build/corpus/$target"
  kept=tests/fuzz/kept/$target
  log=$build/$target.log
  LANGCELL_FUZZ=$target "$build/fuzz" "$build/corpus/$target" "$build/seeds/$target" $([[ -d $kept ]] && echo "$kept") -max_total_time="$(awk "BEGIN { print int($minutes * 60) }")" \
    -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512 -max_len=65536 -fork="$(nproc)" -artifact_prefix="$build/found/$target-" -print_final_stats=1 >"$log" 2>&1 || status=1
  runs=$(grep -oE '^#[0-9]+: cov: [0-9]+' "$log" | tail -n 1)
  echo "$target: ${runs:-no runs, see $log}; finds: $(find "$build/found" -name "$target-*" | wc -l)"
done
exit "$status"
