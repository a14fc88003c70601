#!/usr/bin/env bash
# On a machine with a GPU: every case on CUDA against the CPU, lane maps, compute-sanitizer, one training run on both devices, all timings.
# usage: gpu_check.sh [OUT] [CHECK…]      default OUT: gpu-check, and every check; inside a bundle (tools/bundle.sh) or a build tree. Ends with
# OUT/summary.txt and .json. Checks: cases portable_cases memcheck racecheck training ranks kernels_bf16 portable_kernels steps rates pytorch pytorch_steps
set -uo pipefail
case "${1-}" in
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  -*) echo "gpu_check: unknown argument '$1' (usage: gpu_check.sh [OUT] [CHECK…])" >&2; exit 2 ;;
esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "${1:-gpu-check}" || exit 5
out=$(cd "${1:-gpu-check}" && pwd)
shift
wanted=" ${*-} "
if [[ -d $here/bin ]]; then
  bin=$here/bin data=$here/data peers=$here tests=$here/bin/cuda_device_test kernels=$here/bin/kernels step=$here/bin/step
  export LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else
  build=$here/../build
  bin=$build/bin data=$out peers=$here/../bench/peers tests=$build/tests/cuda_device_test kernels=$build/bench/kernels step=$build/bench/step
fi
for program in "$bin/langcell" "$tests" "$kernels" "$step"; do
  [[ -x $program ]] || { echo "gpu_check: $program is missing; make a bundle with tools/bundle.sh" >&2; exit 5; }
done
"$bin/langcell" info | grep -q '^cuda  *compiled in$' || { "$bin/langcell" info | grep '^cuda' >&2; exit 5; }

names=() codes=() times=()
# run NAME LIMIT COMMAND…: its output in OUT/NAME.log, its exit code and seconds in the summary. 124: it ran past its limit.
run() {
  local name=$1 limit=$2 begin=$EPOCHREALTIME code
  shift 2
  [[ $wanted =~ ^\ *$ || $wanted == *" $name "* ]] || return 0
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  code=$?
  names+=("$name") codes+=("$code") times+=("$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')")
  printf '%-22s %s, %s s\n' "$name" "$(verdict "$code")" "${times[-1]}"
}
verdict() { case $1 in 0) echo passed ;; 3) echo "not done: $(tail -n 1 "$out/${names[-1]}.log")" ;; *) echo "FAILED with $1" ;; esac }

cases() { # in eight processes: the time goes into the references; a device that is not found skips the cases, which is no success
  local shard jobs=() failed=0
  for shard in 0 1 2 3 4 5 6 7; do
    GTEST_TOTAL_SHARDS=8 GTEST_SHARD_INDEX=$shard OMP_NUM_THREADS=2 "$tests" --gtest_brief=1 &
    jobs+=($!)
  done
  for shard in "${jobs[@]}"; do wait "$shard" || failed=1; done
  ((failed == 0)) && ! "$tests" --gtest_brief=1 --gtest_filter='LaneMap*' | grep -q SKIPPED
}

sanitizer() { # TOOL [CASES]
  local program
  program=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
  [[ -n $program ]] || { echo "compute-sanitizer is not on this machine"; return 3; }
  "$program" --tool "$1" --error-exitcode 1 "$tests" --gtest_brief=1 \
    --gtest_filter="${2-*odd_sizes*:*whole_16_bytes:*ragged*:*padded_table*:*several_tiles:*ties*:*parameters*:*norm__clipped*:*_attention_self__ragged__64*:*_attention_many_queries*:*_attention_cross__no_keys*}"
}

# Attention as GPUs without Hopper's instructions do it, on a Hopper GPU.
portable() { # cases | kernels
  "$bin/langcell" info | grep 'cuda:0' | grep -q 'capability 9.0' || { echo "this device has no other path"; return 3; }
  export LANGCELL_SM90=0
  case $1 in
    cases) "$tests" --gtest_brief=1 --gtest_filter='*_attention_*' ;;
    kernels) "$kernels" --device cuda --bf16 --cold --filter 'attention /' --json "$out/kernels-portable.json" ;;
  esac
}

# Losses of the same run on both devices, step by step, in float.
training() {
  local device corpus=$data/small.h5
  [[ -f $corpus ]] || { echo "no $corpus (a bundle has one)"; return 3; }
  for device in cpu cuda; do
    rm -rf "$out/run-$device"
    small_run "$out/run-$device" "$device" || return 1
  done
  compare_losses cpu cuda 2e-3
}
small_run() { # FOLDER DEVICE
  "$bin/langcell" pretrain --run "$1" --device "$2" --precision fp32 --quiet --set "data.corpus=[\"$data/small.h5\"]" \
    --set 'model.preset="tiny"' --set train.batch_size=16 --set stage1.steps=10 --set stage2.steps=20 --set train.log_every=1 \
    --set validate.every=0
}
compare_losses() { # RUN RUN TOLERANCE
  paste <(losses "$out/run-$1") <(losses "$out/run-$2") | awk -v a="$1" -v b="$2" -v tolerance="$3" '
    { d = $1 > $2 ? $1 - $2 : $2 - $1; r = d / $1; if (r > most) most = r; printf "step %d: %s %s, %s %s, relative difference %.2g\n", NR, a, $1, b, $2, r }
    END { printf "%d steps, largest relative difference %.2g\n", NR, most; exit !(NR == 30 && most < tolerance) }'
}

# Two GPUs, found by NCCL as torchrun would start them: the losses of one, and twice the same bits.
ranks() {
  local again rank pids gpus
  gpus=$("$bin/langcell" info | grep -c 'cuda:[0-9]')
  ((gpus >= 2)) || { echo "this machine has one GPU"; return 3; }
  [[ -f $data/small.h5 ]] || { echo "no $data/small.h5 (a bundle has one)"; return 3; }
  for again in cuda ranks ranks-again; do
    rm -rf "$out/run-$again"
    pids=()
    for rank in 0 1; do
      [[ $again != cuda || $rank == 0 ]] || continue
      RANK=$rank LOCAL_RANK=$rank WORLD_SIZE=$([[ $again == cuda ]] && echo 1 || echo 2) MASTER_ADDR=127.0.0.1 MASTER_PORT=29400 \
        small_run "$out/run-$again" cuda &
      pids+=($!)
    done
    for rank in "${pids[@]}"; do wait "$rank" || return 1; done
  done
  cmp "$out"/run-ranks{,-again}/model/cell_bert/model.safetensors && compare_losses cuda ranks 2e-3
}
losses() { grep -o '"loss":[0-9.eE+-]*' "$1/train.jsonl" | cut -d: -f2; }

steps() {
  local corpus=$data/lengths.h5 mode
  [[ -f $corpus ]] || { echo "no $corpus (a bundle has one)"; return 3; }
  for mode in "" --dropout --forward; do
    "$step" "$corpus" --device cuda --bf16 --preset langcell --tokens 2048 --cells 256 --batch 32 --repeats 3 ${mode:+"$mode"} \
      --json "$out/step${mode#-}.json" || return 1
  done
}

# The whole program at full size on real lengths: both stages, cells a second as its own log says; and zero-shot labelling.
rates() {
  local corpus=$data/lengths.h5 run=$out/run-langcell stage
  [[ -f $corpus ]] || { echo "no $corpus (a bundle has one)"; return 3; }
  rm -rf "$run"
  "$bin/langcell" pretrain --run "$run" --device cuda --precision bf16 --quiet --set "data.corpus=[\"$corpus\"]" --set 'model.preset="langcell"' \
    --set train.batch_size=128 --set stage1.steps=16 --set stage2.steps=16 --set train.log_every=4 --set validate.every=0 --set checkpoint.every=0 || return 1
  for stage in 1 2; do
    grep "\"stage\":$stage," "$run/train.jsonl" | tail -n 1 | tee "$out/stage$stage.json" |
      sed -E "s/.*\"loss\":([0-9.]+).*\"samples_per_s\":([0-9.]+),\"tokens_per_s\":([0-9.]+).*/langcell, stage $stage: \\2 cells\/s, \\3 tokens\/s; loss \\1/"
  done
  rm -rf "$run"
  "$step" "$corpus" --device cuda --bf16 --preset langcell --tokens 2048 --cells 512 --batch 32 --repeats 3 --texts 8 --json "$out/zero-shot.json"
}

with_torch() { python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo "no PyTorch with CUDA on this machine"; return 3; }; }
peers() { with_torch && python3 "$peers/torch_kernels.py" --json "$out/torch.json"; }
peer_steps() {
  with_torch || return
  local flags="--device cuda --bf16 --preset langcell --tokens 2048 --cells 256 --batch 32 --repeats 3"
  python3 "$peers/torch_step.py" "$data/lengths.h5" $flags --form eager --dropout 0.02 --json "$out/torch-eager.json" &&
    python3 "$peers/torch_step.py" "$data/lengths.h5" $flags --form sdpa --dropout 0.02 --compile --json "$out/torch-best-dropout.json" &&
    python3 "$peers/torch_step.py" "$data/lengths.h5" $flags --form sdpa --compile --json "$out/torch-best.json"
}
export -f cases portable sanitizer training small_run compare_losses ranks losses steps rates with_torch peers peer_steps
export out bin data tests kernels step peers

run cases 150 bash -c cases
run portable_cases 60 bash -c 'portable cases'
run memcheck 90 bash -c 'sanitizer memcheck'
run racecheck 90 bash -c 'sanitizer racecheck'
run training 60 bash -c training
run ranks 90 bash -c ranks
run kernels_bf16 90 "$kernels" --device cuda --bf16 --cold --json "$out/kernels.json"
run portable_kernels 30 bash -c 'portable kernels'
run steps 90 bash -c steps
run rates 120 bash -c rates
run pytorch 60 bash -c peers
run pytorch_steps 240 bash -c peer_steps

device=$("$bin/langcell" info | sed -n 's/.*cuda:0: //p')
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
version=$(cat "$here/version" 2>/dev/null || git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)
{
  printf '{"version": "%s", "device": "%s", "driver": "%s", "date": "%s",\n "checks": [' "$version" "$device" "$driver" "$(date -u +%F)"
  for i in "${!names[@]}"; do
    printf '%s\n  {"name": "%s", "exit_code": %s, "seconds": %s}' "$([[ $i == 0 ]] || echo ,)" "${names[i]}" "${codes[i]}" "${times[i]}"
  done
  printf ']'
  for file in kernels kernels-portable step step-dropout step-forward stage1 stage2 zero-shot torch torch-eager torch-best-dropout torch-best; do
    [[ ! -s $out/$file.json ]] || printf ',\n "%s": %s' "$file" "$(cat "$out/$file.json")"
  done
  printf '}\n'
} >"$out/summary.json"
{
  echo "langcell $version on $device, driver $driver, $(date -u +%F)"
  for i in "${!names[@]}"; do printf '%-22s exit %s, %s s\n' "${names[i]}" "${codes[i]}" "${times[i]}"; done
  echo
  tail -n 2 "$out/cases.log"
  tail -qn 1 "$out"/{training,ranks}.log
  cat "$out"/{kernels_bf16,portable_kernels,steps,rates,pytorch,pytorch_steps}.log
} >"$out/summary.txt" 2>/dev/null
echo "gpu_check: $out/summary.txt, $out/summary.json; $SECONDS s"
for code in "${codes[@]}"; do [[ $code == 0 || $code == 3 ]] || exit 1; done
