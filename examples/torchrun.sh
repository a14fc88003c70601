#!/usr/bin/env bash
# Pre-trains on the GPUs of one machine, started by PyTorch's launcher: where it is there already and MPI is not.
# usage: examples/torchrun.sh GPUS RUN CONFIG.toml [more words for langcell pretrain]
set -uo pipefail
(($# >= 3)) || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
gpus=$1 run=$2 config=$3
shift 3
exec torchrun --nproc-per-node "$gpus" --no-python "${LANGCELL:-langcell}" pretrain --config "$config" --run "$run" --resume --device cuda "$@"
