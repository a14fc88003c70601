#!/usr/bin/env bash
# Installs what is missing on Debian 12 and builds the program (build/bin/langcell), with --tests and --bench those too. Safe to run again.
# usage: tools/setup.sh [--tests] [--bench]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "setup: $2" >&2; exit "$1"; }

targets=(langcell)
for argument in "$@"; do
  case "$argument" in
    --tests) targets+=(all_tests) ;;
    --bench) targets+=(all_benchmarks) ;;
    -h | --help) sed -n '2,3s/^# //p' tools/setup.sh; exit 0 ;;
    *) fail 2 "unknown argument '$argument' (usage: tools/setup.sh [--tests] [--bench])" ;;
  esac
done

# ocl-icd-opencl-dev: the CMake files of Debian's oneDNN look for OpenCL.
packages=(g++ cmake ninja-build ccache pkg-config libdnnl-dev ocl-icd-opencl-dev libhwy-dev libhdf5-dev libfmt-dev libcli11-dev libtomlplusplus-dev nlohmann-json3-dev
  libutf8proc-dev libboost-context-dev libssl-dev zlib1g-dev libdeflate-dev liblzf-dev libopenmpi-dev openmpi-bin libgtest-dev libbenchmark-dev python3 python3-venv)

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
  fail 5 "apt-get is absent, this script is for Debian 12; install the equivalents of: ${packages[*]}; then: cmake --preset release && cmake --build build"
mkdir -p build || fail 5 "cannot create build/"
mapfile -t missing < <(missing_packages)
if ((${#missing[@]} > 0)); then
  as_root=()
  if [[ $EUID -ne 0 ]]; then
    command -v sudo >/dev/null || fail 5 "these packages are missing and there is no sudo: ${missing[*]}; install them as root, then run this again"
    as_root=(sudo)
  fi
  echo "setup: installing ${missing[*]}"
  {
    "${as_root[@]}" apt-get update && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
  } >build/apt.log 2>&1 </dev/null || fail 5 "apt-get could not install ${missing[*]}: $(grep -m 1 '^E:' build/apt.log || tail -n 1 build/apt.log) (all of it: build/apt.log)"
fi

export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_CUDA_COMPILER_LAUNCHER=ccache
cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log >&2; fail 70 "cmake could not configure (build/configure.log)"; }
cmake --build build --parallel "$(nproc)" --target "${targets[@]}" || fail 70 "the build failed; the compiler's message is above"
echo "setup: ready after ${SECONDS} s: build/bin/langcell"
