"""This program's cell tower beside PyTorch on the same cells: alternating runs, the best of each side, ratios of the bests.

usage: beside_torch.py CORPUS.h5 [--step build/bench/step] [--rounds 5] [--preset small] [--tokens 512] [--cells 64] [--threads 2] [--json FILE]
Each round runs bench/step, PyTorch's best form and the padded eager form one after the other, without dropout and then with the dropout
the model trains with. One run in each is the best of `--repeats` passes. Wants an idle machine: what else runs is part of the figure.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
DROPOUT = 0.02


def ours(options, dropout):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "step.json"
        command = [
            options.step,
            options.corpus,
            "--preset",
            options.preset,
            "--tokens",
            str(options.tokens),
            "--cells",
            str(options.cells),
            "--repeats",
            str(options.repeats),
            "--json",
            str(out),
        ] + ["--dropout"] * bool(dropout)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": str(options.threads)})
        return json.loads(out.read_text())["cells_per_s"]


def torch(options, form, dropout):
    command = [
        sys.executable,
        HERE / "torch_step.py",
        options.corpus,
        "--form",
        form,
        "--preset",
        options.preset,
        "--tokens",
        str(options.tokens),
        "--cells",
        str(options.cells),
        "--repeats",
        str(options.repeats),
        "--threads",
        str(options.threads),
        "--dropout",
        str(dropout),
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["cells_per_s"]


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    return f"{named.get('model name', platform.processor())}, family {named.get('cpu family')}, model {named.get('model')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--step", default=str(HERE.parents[1] / "build/bench/step"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()

    table = []
    for dropout in (0.0, DROPOUT):
        sides = {
            "langcell": lambda: ours(options, dropout),
            "sdpa": lambda: torch(options, "sdpa", dropout),
            "eager": lambda: torch(options, "eager", dropout),
        }
        runs = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                runs[name].append(side())
        best = {name: max(rates) for name, rates in runs.items()}
        table.append(
            {
                "dropout": dropout,
                "cells_per_s": runs,
                "over_sdpa": best["langcell"] / best["sdpa"],
                "over_eager": best["langcell"] / best["eager"],
            }
        )
        print(
            f"dropout {dropout}: langcell {best['langcell']:.1f}, PyTorch sdpa {best['sdpa']:.1f}, padded eager {best['eager']:.1f} cells/s; "
            f"{table[-1]['over_sdpa']:.2f} x sdpa, {table[-1]['over_eager']:.2f} x eager",
            flush=True,
        )
    if options.json:
        facts = {
            "processor": processor(),
            "threads": options.threads,
            "preset": options.preset,
            "tokens": options.tokens,
            "cells": options.cells,
            "rounds": options.rounds,
            "load": os.getloadavg()[0],
            "table": table,
        }
        pathlib.Path(options.json).write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
