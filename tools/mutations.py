#!/usr/bin/env python3
"""Damages files of every encoding, one to four bytes at a time by numbered seeds, and reads them: by langcell's reader of files (kept alive
between them), by the whole program, by h5py and anndata. What was done is kept, one line per thousand seeds; the same command goes on.

    tools/mutations.py --seeds 1000000 [--jobs 2]       through the reader
    tools/mutations.py --program 10000                  through langcell tokenize
    tools/mutations.py --peers 2000                     the same seeds through h5py and anndata
    tools/mutations.py                                  only adds up
Set up before by: bash tools/setup.sh --tests. Results: build/mutations/results.jsonl, or --results FILE.
"""

import argparse
import collections
import concurrent.futures
import datetime
import hashlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "mutations"
STEP = 1000
PEER_SECONDS = 10

# Reads the files named on standard input, each in a fork of its own, and says how that ended.
PEER = """
import os, signal, sys, time, warnings
warnings.filterwarnings("ignore")
what, seconds = sys.argv[1], float(sys.argv[2])
import h5py
if what == "anndata":
    import anndata, scanpy

def look(name, item):
    dict(item.attrs)
    if isinstance(item, h5py.Dataset):
        item[:4096] if item.shape else item[()]

def read(path):
    if what == "h5py":
        with h5py.File(path) as f:
            f.visititems(look)
    else:
        anndata.read_h5ad(path) if path.endswith("h5ad") else scanpy.read_10x_h5(path)

def ended(child):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 2)
        try:
            read(line.strip())
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = ended(child)
    print("none" if status is None else os.waitstatus_to_exitcode(status), flush=True)
"""


class Random:
    """splitmix64, as tests/fuzz/mutations.cpp draws."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        x = self.state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)


def mutated(bases, seed):
    random, base = Random(seed), bases[seed % len(bases)]
    content = bytearray(base.read_bytes())
    for _ in range(1 + random.next() % 4):
        place = random.next() % len(content)
        content[place] = random.next() & 255
    return base, bytes(content)


def make_bases():
    folder = FOLDER / "bases"
    if not folder.exists():
        python = ROOT / ".venv" / "bin" / "python"
        subprocess.run([python, ROOT / "tests/fuzz/mutation_bases.py", folder.with_suffix(".new")], check=True)
        folder.with_suffix(".new").rename(folder)
    bases = sorted(folder.iterdir())
    return bases, hashlib.sha256(b"".join(b.read_bytes() for b in bases)).hexdigest()[:16]


def named(returncode):
    return f"died: {signal.Signals(-returncode).name}" if returncode < 0 else f"exit code {returncode}"


def by_reader(bases, start, core):
    command = [ROOT / "build/tests/mutations", FOLDER / "bases", "--from", start, "--to", start + STEP]
    if core is not None:
        command = ["taskset", "-c", core, *command]  # question and answer on one core: no waking of another
    run = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if run.returncode not in (0, 1):
        return {"outcomes": {f"program {named(run.returncode)}": STEP}, "finds": [run.stderr[-300:]]}
    return json.loads(run.stdout)


def one_run(command, seconds):
    begin = time.monotonic()
    try:
        run = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="surrogateescape", timeout=seconds)
        return run, time.monotonic() - begin
    except subprocess.TimeoutExpired:
        return None, seconds


def by_program(bases, start, _):
    outcomes, finds, slowest, begin = collections.Counter(), [], 0.0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="langcell-") as folder:
        genes = pathlib.Path(folder) / "genes.tsv"
        rows = "".join(f"{i + 2}\tENSG{i:011}\tG{i}\t1.0\n" for i in range(160))
        genes.write_text("token_id\tensembl_id\tgene_name\tmedian\n0\t<pad>\t\t\n1\t<mask>\t\t\n" + rows)
        for seed in range(start, start + STEP):
            base, content = mutated(bases, seed)
            path, out = pathlib.Path(folder) / base.name, pathlib.Path(folder) / "out" / "corpus.h5"
            path.write_bytes(content)
            out.parent.mkdir(exist_ok=True)
            run, took = one_run([ROOT / "build/bin/langcell", "tokenize", path, "--genes", genes, "--out", out, "--allow-low-coverage"], 30)
            slowest = max(slowest, took)
            if run is None or took > 10:
                finds.append(f"seed {seed}: took {took:.1f} s")
            outcomes["no end" if run is None else named(run.returncode)] += 1
            if run is not None:
                lines = [line for line in run.stderr.splitlines() if line.startswith("langcell: error:")]
                left = [p.name for p in out.parent.iterdir()]
                if run.returncode not in (0, 3) or (run.returncode == 3 and (len(lines) != 1 or left or not lines[0].isprintable())):
                    finds.append(f"seed {seed}: {named(run.returncode)}, {lines}, left: {left}")
            out.unlink(missing_ok=True)
    return {"outcomes": dict(outcomes), "finds": finds, "slowest_s": slowest, "seconds": time.monotonic() - begin}


def by_peer(what):
    def run_step(bases, start, _):
        outcomes, begin, slowest = collections.Counter(), time.monotonic(), 0.0
        command = [str(ROOT / ".venv/bin/python"), "-c", PEER, what, str(PEER_SECONDS)]
        with tempfile.TemporaryDirectory(prefix="langcell-") as folder, subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as peer:
            for seed in range(start, start + STEP):
                base, content = mutated(bases, seed)
                path, asked = pathlib.Path(folder) / base.name, time.monotonic()
                path.write_bytes(content)
                peer.stdin.write(f"{path}\n")
                peer.stdin.flush()
                answer = peer.stdout.readline().strip()
                slowest = max(slowest, time.monotonic() - asked)
                code = None if answer == "none" else int(answer)
                outcomes[f"no end within {PEER_SECONDS} s" if code is None else {0: "read", 1: "refused"}.get(code) or named(code)] += 1
            peer.stdin.close()
        return {"outcomes": dict(outcomes), "slowest_s": slowest, "seconds": time.monotonic() - begin}

    return run_step


def campaign(kind, step, wanted, args):
    bases, identity = make_bases()
    done = {line["from"] for line in read_results(args.results) if line["kind"] == kind and line["bases"] == identity}
    starts = [start for start in range(0, wanted, STEP) if start not in done]
    if not starts:
        return
    cores = [core for core in sorted(os.sched_getaffinity(0))][: args.jobs]

    def job(index):
        for start in starts[index :: args.jobs]:
            result = step(bases, start, cores[index] if kind == "reader" and index < len(cores) else None)
            line = {
                "kind": kind,
                "bases": identity,
                "from": start,
                "seeds": STEP,
                **{k: v for k, v in result.items() if k not in ("from", "to")},
            }
            line |= {"date": datetime.date.today().isoformat(), "machine": platform.machine()}
            with args.results.open("a") as f:
                f.write(json.dumps(line) + "\n")

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(job, range(args.jobs)))


def read_results(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_up(results):
    table = {}
    for line in results:
        row = table.setdefault(
            line["kind"],
            {
                "seeds": 0,
                "seconds": 0.0,
                "slowest_s": 0.0,
                "reader_mib": 0.0,
                "program_mib": 0.0,
                "outcomes": collections.Counter(),
                "finds": [],
            },
        )
        row["seeds"] += line["seeds"]
        row["seconds"] += line.get("seconds", 0)
        row["slowest_s"] = max(row["slowest_s"], line.get("slowest_s", 0))
        row["reader_mib"] = max(row["reader_mib"], line.get("reader_mib", 0))
        row["program_mib"] = max(row["program_mib"], line.get("program_mib", 0))
        row["outcomes"].update(line["outcomes"])
        row["finds"] += line.get("finds", [])
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--program", type=int, default=0)
    parser.add_argument("--peers", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=pathlib.Path, default=FOLDER / "results.jsonl")
    args = parser.parse_args()
    args.results.parent.mkdir(parents=True, exist_ok=True)
    campaign("reader", by_reader, args.seeds, args)
    campaign("program", by_program, args.program, args)
    for peer in ("h5py", "anndata"):
        campaign(peer, by_peer(peer), args.peers, args)
    table = add_up(read_results(args.results))
    for kind, row in table.items():
        rate = row["seeds"] / row["seconds"] if row["seconds"] else 0
        print(f"{kind}: {row['seeds']} damaged files, {rate:.0f} a second and process, slowest {row['slowest_s']:.1f} s", end="")
        print(
            f", most memory {row['reader_mib']:.0f} MiB of the reader, {row['program_mib']:.0f} of the program" if row["reader_mib"] else ""
        )
        for outcome, count in sorted(row["outcomes"].items(), key=lambda item: -item[1]):
            print(f"  {count:>9} {100 * count / sum(row['outcomes'].values()):7.3f} %  {outcome}")
        for find in row["finds"][:20]:
            print(f"  FIND {find}")
    return 1 if any(row["finds"] for row in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
