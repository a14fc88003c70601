#!/usr/bin/env bash
# Makes one folder that runs on a bare GPU node: program, tests and benchmarks for CUDA, the libraries such a node lacks, and gpu_check.sh.
# usage: tools/bundle.sh [OUT.tar.xz]      default: build/bundle.tar.xz; wants nvcc. On the node: tar xf, then bash langcell-bundle/gpu_check.sh
# Real cells for the timings come from LANGCELL_TEST_DATA (default ../shared), simulated ones where it is absent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "bundle: $2" >&2; exit "$1"; }

case "${1-}" in
  -h | --help) sed -n '2,4s/^# //p' tools/bundle.sh; exit 0 ;;
  -*) fail 2 "unknown argument '$1' (usage: tools/bundle.sh [OUT.tar.xz])" ;;
esac
out=${1:-build/bundle.tar.xz}
command -v nvcc >/dev/null || fail 5 "there is no nvcc on the PATH; install the CUDA Toolkit"

bash tools/setup.sh
cmake --build build --parallel "$(nproc)" --target cuda_device_test bench_kernels bench_step

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
to=$work/langcell-bundle
mkdir -p "$to"/{bin,lib,data}
cp build/bin/langcell build/tests/cuda_device_test build/bench/kernels build/bench/step "$to/bin"
strip "$to"/bin/*
cp tools/gpu_check.sh bench/peers/torch_kernels.py bench/peers/torch_step.py "$to"
git rev-parse HEAD >"$to/version" 2>/dev/null || echo unknown >"$to/version"

# Every library but those that belong to the node's kernel and C library.
for program in "$to"/bin/*; do
  ldd "$program"
done | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u | while read -r library; do
  case "$(basename "$library")" in
    libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | ld-linux*) ;;
    *) cp -L "$library" "$to/lib" ;;
  esac
done

# Cells: a corpus of real token lengths, and a small one with texts for a training run on both devices.
data=${LANGCELL_TEST_DATA:-../shared}/data
if [[ -f $data/pbmc3k.h5ad ]]; then
  cp "$data/pbmc3k.h5ad" "$to/data/cells.h5ad"
  cp "$data/pbmc3k_texts.json" "$to/data/texts.json"
  build/bin/langcell tokenize "$data/pbmc3k.h5ad" --genes "$data/geneformer_v1_genes.tsv" --texts "$data/pbmc3k_texts.json" --label-key cell_type \
    --out "$to/data/lengths.h5" --quiet
  echo "real cells (pbmc3k)" >"$to/data/about"
fi
build/bin/langcell simulate --cells 400 --genes 300 --types 4 --out "$work/cells.h5ad" --texts "$work/texts.json" --quiet
build/bin/langcell vocab --from "$work/cells.h5ad" --out "$work/genes.tsv"
build/bin/langcell tokenize "$work/cells.h5ad" --genes "$work/genes.tsv" --texts "$work/texts.json" --label-key cell_type --out "$to/data/small.h5" --quiet
if [[ ! -f $to/data/lengths.h5 ]]; then
  cp "$to/data/small.h5" "$to/data/lengths.h5"
  cp "$work/cells.h5ad" "$work/texts.json" "$to/data"
  echo "simulated cells" >"$to/data/about"
fi

tar -C "$work" -cJf "$work/bundle.tar.xz" langcell-bundle
mv "$work/bundle.tar.xz" "$out"
echo "bundle: $out, $(du -m "$out" | cut -f1) MiB; on the node: tar xf $(basename "$out") && bash langcell-bundle/gpu_check.sh"
