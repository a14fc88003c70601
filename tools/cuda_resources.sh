#!/usr/bin/env bash
# What nvcc says of every CUDA kernel: registers, stack, spills, for sm_80, sm_90 and (kernels/cuda/sm90) sm_90a. Ends with 1 when a kernel spills or needs a stack frame
# that is not in the list below.     usage: tools/cuda_resources.sh [OUT]      default OUT: build/cuda_resources.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1-}" in
  -h | --help) sed -n '2,3s/^# //p' tools/cuda_resources.sh; exit 0 ;;
  -*) echo "cuda_resources: unknown argument '$1' (usage: tools/cuda_resources.sh [OUT])" >&2; exit 2 ;;
esac
out=${1:-build/cuda_resources.txt}
command -v nvcc >/dev/null || { echo "cuda_resources: there is no nvcc on the PATH; install the CUDA Toolkit" >&2; exit 5; }
# Known: dk and dv of heads 128 wide hold more than the registers; rows that are not aligned to 16 bytes (width 1, "plain"); a division of doubles
# is a call. On sm_80 four to twenty bytes at 128 registers, for a block more on every multiprocessor.
known='attention_key_gradient_kernel<128|rank_encoding_kernel|elementwise_kernel<1, |embedding_[a-z]*_kernel<1, |l2_[a-z_]*_kernel<1, |_plain_kernel<|residual_norm_backward_kernel<2, float>'
known+='|^sm_80 .*(attention_forward_kernel<(32|64)|residual_norm_backward_kernel<16)'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
one() { # ARCHITECTURE FILE: a line per kernel
  local said=$work/$1-$(basename "$2").said
  nvcc -std=c++20 -O3 --expt-relaxed-constexpr -diag-suppress=554 -I. -Ikernels/cuda/ptx -gencode "arch=compute_$1,code=sm_$1" -Xptxas -v \
    -c "$2" -o "$work/$1-$(basename "$2").o" >"$said" 2>&1 || { echo "cuda_resources: $2 does not compile for sm_$1: $(grep -m 1 -E 'error|fatal' "$said")" >&2; return 255; }
  awk <"$said" -v file="$(basename "$2")" -v arch="sm_$1" '
      /Compiling entry function/ { match($0, /\047[^\047]*\047/); name = substr($0, RSTART + 1, RLENGTH - 2) }
      /bytes stack frame/ { match($0, /[0-9]+ bytes stack/); stack = substr($0, RSTART) + 0; match($0, /[0-9]+ bytes spill stores/); spill = substr($0, RSTART) + 0 }
      /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); printf "%s %s %s registers %d stack %d spill %d\n", arch, file, name, substr($0, RSTART + 5) + 0, stack, spill }'
}
export -f one
export work
for architecture in 80 90; do
  for file in kernels/cuda/*.cu; do echo "$architecture $file"; done
done >"$work/jobs"
for file in kernels/cuda/sm90/*.cu kernels/cuda/{cross_entropy,infonce,matmul}.cu; do echo "90a $file"; done >>"$work/jobs"
xargs <"$work/jobs" -P "$(nproc)" -L 1 bash -c 'one "$@" >"$work/$1-$(basename "$2").txt"' _
cat "$work"/*.txt | c++filt -p | grep ' registers ' | sort >"$work/all"
mkdir -p "$(dirname "$out")" && mv "$work/all" "$out"
over=$(grep -vE ' stack 0 spill 0$' "$out" | grep -cvE "$known" || true)
echo "cuda_resources: $(wc -l <"$out") kernels, $(grep -cvE ' stack 0 spill 0$' "$out" || true) with a stack frame or spills, $over of them not known; $out"
! grep -h 'C75[0-9][0-9]' "$work"/*.said | c++filt -p >&2 || { echo "cuda_resources: ptxas makes products of wgmma wait for each other (above)" >&2; exit 1; }
((over == 0)) || { grep -vE ' stack 0 spill 0$' "$out" | grep -vE "$known" >&2; exit 1; }
