"""What `langcell plan` said, beside what the run then took: memory and time of a step, per stage.

    python bench/plan.py --work build/plan-check [--device cpu] [--gpu h200] [--threads 2] [--filter small] [--json FILE]

Simulates cells once, then for every configuration plans it, runs it, and prints both. Each stage runs two epochs: a step's time is the mean
over the second, because batches differ in length and the first one meets memory that is not there yet."""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

CPU = {
    "tiny, 2048 tokens, batch 32": ["model.preset=tiny", "train.batch_size=32"],
    "tiny, 512 tokens, batch 64, accumulate 2": ["model.preset=tiny", "train.batch_size=64", "data.max_cell_tokens=512", "train.accumulate=2"],
    "small, 256 tokens, batch 32": ["model.preset=small", "train.batch_size=32", "data.max_cell_tokens=256"],
    "small, 512 tokens, batch 16": ["model.preset=small", "train.batch_size=16", "data.max_cell_tokens=512"],
    "small, 512 tokens, batch 16, recompute": ["model.preset=small", "train.batch_size=16", "data.max_cell_tokens=512", "train.recompute=true"],
    "small, 1024 tokens, batch 32, accumulate 4, recompute": [
        "model.preset=small", "train.batch_size=32", "data.max_cell_tokens=1024", "train.accumulate=4", "train.recompute=true"],
}
CUDA = {
    "langcell, 2048 tokens, batch 64": ["model.preset=langcell", "train.batch_size=64"],
    "langcell, 512 tokens, batch 256": ["model.preset=langcell", "train.batch_size=256", "data.max_cell_tokens=512"],
    "langcell, 1024 tokens, batch 128, recompute": [
        "model.preset=langcell", "train.batch_size=128", "data.max_cell_tokens=1024", "train.recompute=true"],
    "langcell, 2048 tokens, batch 256, accumulate 4": ["model.preset=langcell", "train.batch_size=256", "train.accumulate=4"],
    "small, 2048 tokens, batch 128": ["model.preset=small", "train.batch_size=128"],
}


ENVIRONMENT = dict(os.environ)


def run(command):
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command}: failed")
    return out, usage.ru_maxrss * 1024


def make_corpus(langcell, work, cells):
    corpus = work / "corpus.h5"
    if corpus.exists():
        return corpus
    work.mkdir(parents=True, exist_ok=True)
    counts, texts, genes = work / "cells.h5ad", work / "texts.json", work / "genes.tsv"
    run([langcell, "simulate", "--out", counts, "--texts", texts, "--cells", cells, "--genes", 8000, "--types", 16, "--seed", 3, "--quiet"])
    run([langcell, "vocab", "--from", counts, "--out", genes])
    run([langcell, "tokenize", counts, "--genes", genes, "--texts", texts, "--label-key", "cell_type", "--out", corpus, "--quiet"])
    return corpus


def compare(langcell, corpus, work, keys, args):
    sets = [f"data.corpus={corpus}", "stage1.epochs=2.0", "stage2.epochs=2.0", "train.log_every=1", "validate.every=0",
            "checkpoint.every=0", *keys]
    options = [x for key in sets for x in ("--set", key)] + ["--device", args.device, "--threads", args.threads, "--json"]
    plan = json.loads(run([langcell, "plan", *options, "--seconds", args.seconds, *(["--gpu", args.gpu] if args.gpu else [])])[0])
    folder = work / "run"
    subprocess.run(["rm", "-rf", folder], check=True)
    _, resident = run([langcell, "pretrain", "--quiet", "--run", folder, *options])
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    rows = []
    for stage in plan["stages"]:
        steps = [line for line in lines if line["stage"] == stage["stage"]]
        times = [line["step_s"] for line in steps[len(steps) // 2 :]]
        rows.append({"stage": stage["stage"], "peak_planned": stage["peak_bytes"], "peak_measured": max(line["peak_bytes"] for line in steps),
                     "held_planned": stage["held_bytes"], "resident_measured": resident,
                     "step_planned": stage["step_s"], "step_measured": statistics.mean(times)})
    return plan, rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--langcell", default="build/bin/langcell")
    parser.add_argument("--work", type=Path, default=Path("build/plan-check"))
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--gpu", default="", help="the rates of this GPU's table in place of a short run")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--cpu-clock", action="store_true", help="CPU time in place of time, where others use the machine; one thread")
    parser.add_argument("--cells", type=int, default=128)
    parser.add_argument("--seconds", default="6")
    parser.add_argument("--filter", default="")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.cpu_clock:
        args.threads, library = "1", args.work / "cpu_clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", Path(__file__).with_name("cpu_clock.c"), "-o", library], check=True)
        ENVIRONMENT["LD_PRELOAD"] = str(library.resolve())
    corpus = args.corpus or make_corpus(args.langcell, args.work, args.cells)
    results = []
    print(f"{'configuration':<56}{'stage':>6}{'peak MiB':>10}{'planned':>9}{'':>8}{'step s':>9}{'planned':>9}")
    for name, keys in (CPU if args.device == "cpu" else CUDA).items():
        if args.filter not in name:
            continue
        plan, rows = compare(args.langcell, corpus, args.work, keys, args)
        results.append({"configuration": name, "machine": plan["machine"], "rates": plan["rates"], "stages": rows})
        for r in rows:
            print(f"{name:<56}{r['stage']:>6}{r['peak_measured'] / 2**20:>10.1f}{r['peak_planned'] / 2**20:>9.1f}"
                  f"{r['peak_planned'] / r['peak_measured'] - 1:>+8.1%}{r['step_measured']:>9.3f}{r['step_planned']:>9.3f}"
                  f"{r['step_planned'] / r['step_measured'] - 1:>+8.1%}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
