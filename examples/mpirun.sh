#!/usr/bin/env bash
# Pre-trains on one machine with several ranks; after a lost rank it goes on from the newest checkpoint.
# usage: examples/mpirun.sh RANKS RUN CONFIG.toml [more words for langcell pretrain]
set -uo pipefail
(($# >= 3)) || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
ranks=$1 run=$2 config=$3
shift 3
langcell=${LANGCELL:-langcell}

for try in 1 2 3 4; do
  mpirun -np "$ranks" "$langcell" pretrain --config "$config" --run "$run" --resume "$@"
  code=$?
  case $code in
    0) exit 0 ;;
    75) echo "mpirun.sh: stopped as asked, with a checkpoint; the same command goes on" >&2; exit 75 ;;
    6) echo "mpirun.sh: a rank was lost (try $try of 4); see $run/exits" >&2 ;;
    *) exit "$code" ;; # bad input, a full disk, a loss that is not a number: another try would end the same way
  esac
done
exit "$code"
