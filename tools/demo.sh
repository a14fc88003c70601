#!/usr/bin/env bash
# From counts and texts to labelled cells in one command: trains a small LangCell on your cells and labels a fifth of them that it has not seen.
# usage: tools/demo.sh [COUNTS.h5ad TEXTS.json LABEL_KEY] [--out DIR] [--seed 0] [--genes G.tsv]      without a file, cells are simulated
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
langcell=$root/build/bin/langcell
out=$root/build/demo
seed=0
genes=

fail() { echo "demo: $2" >&2; exit "$1"; }

inputs=()
while (($# > 0)); do
  case "$1" in
    --out | --seed | --genes)
      (($# > 1)) || fail 2 "$1 needs a value"
      case "$1" in --out) out=$2 ;; --seed) seed=$2 ;; --genes) genes=$2 ;; esac
      shift 2 ;;
    -h | --help) sed -n '2,3s/^# //p' "$root/tools/demo.sh"; exit 0 ;;
    -*) fail 2 "unknown option '$1' (tools/demo.sh --help)" ;;
    *) inputs+=("$1"); shift ;;
  esac
done
((${#inputs[@]} == 0 || ${#inputs[@]} == 3)) || fail 2 "wanted COUNTS.h5ad TEXTS.json LABEL_KEY or none of them, got ${#inputs[@]} (tools/demo.sh --help)"
[[ $seed =~ ^[0-9]+$ ]] || fail 2 "--seed must be a whole number, got '$seed'"
[[ -n $out ]] || fail 2 "--out needs the name of a folder"
for file in "${inputs[@]:0:2}" ${genes:+"$genes"}; do
  [[ -r $file && -f $file ]] || fail 3 "$file is missing or unreadable; check the path"
done

for file in "${inputs[@]:0:2}" ${genes:+"$genes"}; do  # what lies there is replaced
  [[ $(realpath "$file") != "$(realpath -m "$out")"/* ]] || fail 2 "$file lies in $out, which the demo empties; choose another --out"
done

# Only a folder of an earlier demo is used again; nobody else's `model/` is removed.
if [[ -e $out && ! -e $out/demo.log && -n "$(ls -A "$out" 2>/dev/null || echo file)" ]]; then
  fail 2 "$out exists and is not from a demo; choose another --out"
fi

bash "$root/tools/setup.sh"
mkdir -p "$out" 2>/dev/null || fail 5 "cannot create $out; choose another --out"
rm -rf "$out"/{train.h5ad,heldout.h5ad,genes.tsv,corpus.h5,run,model,annotated.h5ad,metrics.json,report.html,simulated.h5ad,simulated_texts.json}
: >"$out/demo.log" 2>/dev/null || fail 5 "cannot write to $out; choose another --out"

# step "what it does" command…: announces, runs, notes the time; a failing command has said why and gives its exit code.
began=$SECONDS
number=0
step() {
  local title=$1 start=$SECONDS code=0
  shift
  number=$((number + 1))
  printf '\n[%d] %s\n' "$number" "$title"
  "$@" || code=$?
  ((code == 0)) || fail "$code" "step $number failed (exit $code): $title"
  printf '    %d s\n' $((SECONDS - start))
  printf '%4d s  %s\n' $((SECONDS - start)) "$title" >>"$out/demo.log"
}

if ((${#inputs[@]} == 0)); then
  inputs=("$out/simulated.h5ad" "$out/simulated_texts.json" cell_type)
  step "simulate: a count matrix of eight cell types, with a text for each" \
    "$langcell" simulate --out "${inputs[0]}" --texts "${inputs[1]}" --seed "$seed"
fi
counts=${inputs[0]} texts=${inputs[1]} key=${inputs[2]}

step "split: a fifth of the cells is set aside, in proportion to $key; nothing below sees them before step 'annotate'" \
  "$langcell" split "$counts" --key "$key" --fraction 0.2 --seed "$seed" --train "$out/train.h5ad" --test "$out/heldout.h5ad"
if [[ -z $genes ]]; then
  genes=$out/genes.tsv
  step "vocab: the genes of the training cells, each with the median of its values, become the vocabulary" \
    "$langcell" vocab --from "$out/train.h5ad" --out "$genes"
fi
step "tokenize: each cell becomes its genes, ordered by how unusually high they are; each label becomes its text" \
  "$langcell" tokenize "$out/train.h5ad" --genes "$genes" --out "$out/corpus.h5" --texts "$texts" --label-key "$key"
step "pretrain: stage 1 learns genes in context, stage 2 brings each cell near its text" \
  "$langcell" pretrain --config "$root/tools/recipe.toml" --run "$out/run" --set "data.corpus=[\"$out/corpus.h5\"]" --set "train.seed=$seed"
step "model: the finished model folder is copied beside the run" cp -r "$out/run/model" "$out/model"
step "annotate: every cell set aside is compared with every text and takes the best" \
  "$langcell" annotate "$out/heldout.h5ad" --model "$out/model" --texts "$texts" --out "$out/annotated.h5ad"
step "evaluate: labels against the truth, beside majority, nearest neighbours and logistic regression on the same split" \
  "$langcell" evaluate annotation "$out/annotated.h5ad" --truth "$key" --train "$out/train.h5ad" --metrics "$out/metrics.json" --split-seed "$seed"
step "report: one page with data, training, labels and baselines" \
  "$langcell" report "$out" --truth "$key" --setting "seen types, same donor" --out "$out/report.html"

printf '\ntimes (%d s in all):\n' $((SECONDS - began))
cat "$out/demo.log"
printf '\nlabels: %s\nscores: %s\nreport: %s\nmodel:  %s\n' "$out/annotated.h5ad" "$out/metrics.json" "$out/report.html" "$out/model"
