#!/usr/bin/env bash
# Runs clang-tidy's bugprone checks over engine/, models/, train/ and tools/ (Debian: apt-get install clang-tidy; tools/setup.sh was run). Exit code 1 when one finds something.
# usage: tools/tidy.sh [--jobs N] [FILE...]      the two checks that are off, and why: .clang-tidy
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "tidy: $2" >&2; exit "$1"; }

jobs=$(nproc)
if [[ "${1-}" == --jobs ]]; then jobs=$2; shift 2; fi
command -v clang-tidy >/dev/null || fail 5 "clang-tidy is absent; apt-get install clang-tidy"
mkdir -p build
cmake --preset release -B build/tidy -DLC_UNITY=OFF >build/tidy.log 2>&1 || fail 5 "cmake cannot configure (build/tidy.log); run tools/setup.sh first"
files=("$@")  # of all but what another machine builds, and the file that the CUDA twin builds
if ((${#files[@]} == 0)); then mapfile -t files < <(git ls-files 'engine/*.cpp' 'models/*.cpp' 'train/*.cpp' 'tools/*.cpp' ':!*/absent.cpp' ':!engine/nccl/comm_nccl.cpp'); fi
checks='-*,bugprone-*,-bugprone-easily-swappable-parameters,-bugprone-narrowing-conversions'
log=build/tidy/tidy.log
printf '%s\0' "${files[@]}" | xargs -0 -P "$jobs" -n 1 clang-tidy -p build/tidy --quiet --checks="$checks" --warnings-as-errors='*' >"$log" 2>&1 || true
if grep -E '(error|warning): ' "$log" | sort -u; then fail 1 "see above (all of it: $log)"; fi
echo "tidy: ${#files[@]} files clean"
