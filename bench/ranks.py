"""Ranks on the CPUs of this machine beside one rank with as many threads: throughput, and the share of a step spent in communication.

    python bench/ranks.py [--langcell build/bin/langcell]... [--ranks 2] [--rounds 3] [--set key=value]... [--json FILE]

Simulates cells once, then runs all configurations in turn, `--rounds` times, and keeps of each the round that was disturbed least. Several
--langcell (builds of several versions) are compared in the same turns. The first step of a stage meets memory that is not there yet: it is
not counted. Other work on the machine shows as its load before the first run."""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from plan import make_corpus

ENVIRONMENT = os.environ | {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
SETTINGS = ["model.preset=small", "data.max_cell_tokens=256", "train.batch_size=16", "train.precision=fp32", "train.log_every=1",
            "validate.every=0", "checkpoint.every=0", "train.tensorboard=false"]


def run(binary, corpus, folder, ranks, threads, args):
    shutil.rmtree(folder, ignore_errors=True)
    sets = [f"data.corpus={corpus}", *SETTINGS, f"stage1.steps={args.steps}", f"stage2.steps={args.steps}", *args.set]
    command = [binary, "pretrain", "--quiet", "--device", "cpu", "--threads", threads, "--run", folder]
    command += [x for s in sets for x in ("--set", s)]
    start = ["mpirun", "-np", ranks] if ranks > 1 else []
    subprocess.run([str(word) for word in start + command], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [stage_of([line for line in lines if line["stage"] == stage][1:]) for stage in (1, 2)]


def stage_of(lines):
    mean = lambda key: statistics.mean(line.get(key, 0) for line in lines)  # noqa: E731
    step = mean("step_s")
    row = {"step_s": step, "tokens_per_s": mean("tokens_per_s"), "loss_after": lines[-1]["loss"], "exposed_share": mean("comm_s") / step}
    if "sums_s" in lines[0]:
        row["exposed_share_of_sums"] = mean("sums_s") / step
    return {key: float(f"{value:.6g}") for key, value in row.items()}


def machine():
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--langcell", action="append", default=[], help="NAME=PATH or PATH; may be given several times")
    parser.add_argument("--work", type=Path, default=Path("build/ranks-bench"))
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--cells", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    binaries = dict(word.split("=", 1) if "=" in word else (word, word) for word in args.langcell or ["build/bin/langcell"])
    corpus = make_corpus(next(iter(binaries.values())), args.work, args.cells)
    result = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "load_before": [round(x, 2) for x in os.getloadavg()],
              "command": f"bench/ranks.py --ranks {args.ranks} --cells {args.cells} --steps {args.steps} --rounds {args.rounds}"
              + "".join(f" --set {s}" for s in args.set), "settings": SETTINGS}
    found = {}
    for done in range(args.rounds):
        for name, binary in binaries.items():
            for ranks, threads in ((1, args.ranks), (args.ranks, 1)):
                for stage, row in enumerate(run(binary, corpus, args.work / "run", ranks, threads, args), 1):
                    found.setdefault((name, ranks, threads, stage), []).append(row)
        print(f"{done + 1} of {args.rounds} rounds", flush=True)
        if args.json:
            write(args.json, result, found)
    for (name, ranks, threads, stage), rows in found.items():
        best, slowest = (f(rows, key=lambda row: row["step_s"]) for f in (min, max))
        print(f"{name}: {ranks} rank(s) of {threads} thread(s), stage {stage}: {best['step_s']:.3f} s "
              f"({slowest['step_s']:.3f} in the slowest round), {best['tokens_per_s']:.0f} tokens/s, {best['exposed_share']:.1%} in communication")


def write(path, result, found):
    rows = [{"build": name, "ranks": ranks, "threads": threads, "stage": stage, **min(rows, key=lambda row: row["step_s"]),
             "step_s_of_rounds": [round(row["step_s"], 4) for row in rows]} for (name, ranks, threads, stage), rows in found.items()]
    text = ",\n  ".join(json.dumps(row) for row in rows)
    path.write_text(json.dumps(result, indent=1)[:-2] + f',\n "rows": [\n  {text}\n ]\n}}\n')


if __name__ == "__main__":
    main()
