#!/usr/bin/env python3
"""Kills the program at every call it makes of the machine, and lets every call fail in turn; afterwards the old or the new state must be whole.

usage: tools/chaos.py [--minutes 10] [--log build/chaos.jsonl] [--only save annotate run ...] [--every 1]      wants build/bin/langcell, build/tests/libfail.so
One JSON line a point goes to the log; points that are there already are not tried again. Ends with a table; exit code 1 when a point is wrong.
save      a kill at each call of one checkpoint save; the run then resumed must end in the same weights, byte by byte
annotate  a kill at each call of one annotate; the same command must then end in the same file, byte by byte
run       a kill of a training run at a time drawn by chance; resumed, the same weights
ranks     a kill of one rank of three at a time drawn by chance: all must be gone within five seconds; resumed, the same weights
hang-ranks    the same by SIGSTOP: named, and all gone within five seconds after ranks.silence_s = 2, with 6; resumed, the same weights
resume-ranks  two ranks resume from each step of 200; the weights of the undisturbed run, byte by byte
full-ranks    the n-th call of a save by rank 0 of two finds no space: 5 of all and one line; resumed, the same weights
ERRNO-save, ERRNO-annotate, ERRNO-start   the n-th call fails: exit code and one line, or a finished run with the same result; nothing else left
ERRNO-tokenize-reader, ERRNO-annotate-reader, kill-…   the same inside the process that reads files; the line names the file
memory-pretrain, -tokenize, -annotate, -import   twenty limits of address space between what the command needs and what starting the program needs:
          5 and one line, or the same result; nothing half-written; without the limit the same command then succeeds
clock     the system's clock jumps by up to a day while a run trains, saves, is resumed: the same weights, no time or rate below zero
"""

import argparse
import collections
import concurrent.futures
import errno
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
CODES = {2, 3, 4, 5, 75}
CHANGING = "open,write,pwrite,fsync,ftruncate,rename,mkdir,unlink,close"
ALL = CHANGING + ",read"
WRITING = "write,pwrite,fsync,ftruncate,rename,mkdir"  # what a full disk refuses for certain
RANKS_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
                     "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none"}
FAULTS = {"enospc": (errno.ENOSPC, CHANGING), "edquot": (errno.EDQUOT, CHANGING), "eio": (errno.EIO, ALL), "eintr": (errno.EINTR, "open,write,pwrite,read"),
          "short": ("short", "write,pwrite,read"), "enomem": (errno.ENOMEM, "malloc"), "kill": ("kill", ALL)}


MIB, LIMITS = 1 << 20, 20
OUTPUTS = {"tokenize": "c.h5", "annotate": "out.h5ad"}


def hashes(folder, pattern="*"):
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.rglob(pattern)) if f.is_file()}


def digest(folder, name):
    """Of a file that says which input it comes from: all such folders have names of one length."""
    return hashlib.sha256((folder / name).read_bytes().replace(str(folder).encode(), b"")).hexdigest()


class Bench:
    """Made once: cells, texts, a model, a run that stands before its next save, and what undisturbed commands make of them."""

    def __init__(self, folder, binary, library):
        self.folder, self.binary, self.library = folder, binary, library
        if not (folder / "ready").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.make()
        self.weights = hashes(folder / "whole" / "model", "*.safetensors")
        self.annotated = hashlib.sha256((folder / "whole.h5ad").read_bytes()).hexdigest()
        self.read = {kind: self.digest_of(kind) for kind in OUTPUTS}

    def say(self, *words):
        done = subprocess.run([self.binary, *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"chaos: {' '.join(map(str, words))}: {done.stderr}")

    def make(self):
        f = self.folder
        self.say("simulate", "--out", f / "a.h5ad", "--texts", f / "t.json", "--cells", 600, "--genes", 900, "--types", 3, "--seed", 1, "--quiet")
        self.say("vocab", "--from", f / "a.h5ad", "--out", f / "g.tsv")
        self.say("tokenize", f / "a.h5ad", "--genes", f / "g.tsv", "--out", f / "c.h5", "--texts", f / "t.json", "--label-key", "cell_type")
        self.say(*self.training(f / "half", 1))
        shutil.rmtree(f / "half/model")
        shutil.copytree(f / "half", f / "whole")
        self.say(*self.training(f / "whole", 2))
        self.say(*self.annotate(f / "whole.h5ad"))
        self.say("simulate", "--out", f / "few.h5ad", "--texts", f / "few.json", "--cells", 40, "--genes", 900, "--types", 3, "--seed", 1, "--quiet")
        (f / "ready").touch()

    def training(self, run, steps, every=1, *more):
        values = ['model.preset="tiny"', "data.max_cell_tokens=64", "data.max_text_tokens=64", "train.batch_size=8", "stage1.steps=0",
                  f"stage2.steps={steps}", 'stage2.decay="constant"', "stage2.warmup=0", f"checkpoint.every={every}", "checkpoint.keep=2", "train.log_every=1",
                  f'data.corpus=["{self.folder}/c.h5"]']
        return ["pretrain", "--run", run, "--quiet", "--threads", 1, "--resume", *(word for v in [*values, *more] for word in ("--set", v))]

    def learn(self, run, words):
        """What an undisturbed job of ranks makes of it, and in what time."""
        begin = time.monotonic()
        done = subprocess.run(words, env=os.environ | RANKS_ENVIRONMENT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"chaos: ranks: {done.stderr}")
        self.ranks_seconds, self.ranks_weights = time.monotonic() - begin, hashes(run / "model", "*.safetensors")

    def fresh(self, name):
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name

    def annotate(self, out):
        return self.reading("annotate", self.folder / "a.h5ad", out)

    def reading(self, kind, cells, out):
        """A command that reads cells and writes HDF5, through the process that reads files."""
        texts = ["--texts", self.folder / "t.json", "--threads", 1, "--out", out]
        if kind == "annotate":
            return ["annotate", cells, "--model", self.folder / "whole/model", *texts]
        return ["tokenize", cells, "--genes", self.folder / "g.tsv", "--label-key", "cell_type", *texts]

    def digest_of(self, kind):
        """Of what an undisturbed command makes of the few cells."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            shutil.copy(self.folder / "few.h5ad", folder + "/a.h5ad")
            self.say(*self.reading(kind, folder + "/a.h5ad", folder + "/" + OUTPUTS[kind]))
            return digest(pathlib.Path(folder), OUTPUTS[kind])

    def run(self, command, under, **more):
        """The command with libfail before it; more: at, how, calls, log."""
        environment = os.environ | {"LD_PRELOAD": str(self.library), "FAIL_UNDER": str(under)} | {f"FAIL_{k.upper()}": str(v) for k, v in more.items()}
        return subprocess.run([self.binary, *map(str, command)], env=environment, capture_output=True, text=True, timeout=60)

    def place(self, kind, folder):
        """A fresh folder for one point: the command, the path whose calls count, and what must be true at the end."""
        if kind == "annotate":
            out = folder / "out.h5ad"
            return self.annotate(out), folder, lambda: hashlib.sha256(out.read_bytes()).hexdigest() == self.annotated and os.listdir(folder) == ["out.h5ad"]
        if kind.endswith("-reader"):
            kind = kind.removesuffix("-reader")
            cells, out = folder / "a.h5ad", folder / OUTPUTS[kind]
            shutil.copy(self.folder / "few.h5ad", cells)
            alone = ["a.h5ad", out.name]
            return self.reading(kind, cells, out), folder, lambda: sorted(os.listdir(folder)) == alone and digest(folder, out.name) == self.read[kind]
        run = folder / "run"
        shutil.copytree(self.folder / "half", run)
        command = self.training(run, 2)

        def whole():
            return hashes(run / "model", "*.safetensors") == self.weights and not list(run.rglob("*.partial-*")) and not list(run.rglob("*.old-*"))

        return command, run / "checkpoints" if kind == "save" else run, whole


def one_line(done):
    lines = [line for line in done.stderr.splitlines() if line.startswith("langcell: error:")]
    return len(lines) == 1 and done.stderr.rstrip().endswith(lines[0]) and "internal error" not in lines[0]


def where(kind):
    return {"in": "reader"} if kind.endswith("-reader") else {}


def kill_point(bench, kind, number):
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        command, under, whole = bench.place(kind, pathlib.Path(folder))
        killed = bench.run(command, under, at=number, how="kill", calls=ALL)
        again = bench.run(command, under)
        return {"killed": killed.returncode == -signal.SIGKILL, "right": again.returncode == 0 and whole(), "said": again.stderr.strip()[-200:]}


def fault_point(bench, kind, fault, number):
    how, calls = FAULTS[fault]
    reader = kind.endswith("-reader")
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        command, under, whole = bench.place(kind, pathlib.Path(folder))
        log = bench.folder / f"log-{os.path.basename(folder)}"
        try:
            done = bench.run(command, under, at=number, how=how, calls=calls, log=log, **where(kind))
        except subprocess.TimeoutExpired:
            return {"right": False, "said": "hangs"}
        lines = log.read_text().splitlines() if log.exists() else []
        left = sum(int(line.split()[1]) for line in (lines[-1:] if reader else lines)) if lines else -1  # the reader ends before the program, as it likes
        log.unlink(missing_ok=True)
        said = (done.stderr.strip().splitlines() or [""])[-1][:300]
        clean = done.returncode == 0 or (done.returncode in CODES and one_line(done))
        partial = [str(p) for p in pathlib.Path(folder).rglob("*.partial-*")] if fault != "eio" and fault != "enospc" else []
        result = {"code": done.returncode, "leaks": left, "left": len(partial), "said": said.replace(folder, "")}
        if reader:  # silence must mean a right result; an error names the file
            clean = whole() if done.returncode == 0 else clean and done.returncode in (3, 5) and folder in said
        if not reader or done.returncode:
            result["again"] = bench.run(command, under).returncode
            clean = clean and result["again"] == 0 and whole()
        return result | {"right": clean and left == 0 and not partial}


def memory_place(bench, kind, folder):
    """The command, and what it has made: nothing when it has failed."""
    out = folder / OUTPUTS.get(kind, "model")
    if kind == "pretrain":
        command, out = bench.training(folder / "run", 2), folder / "run/model"
    elif kind == "import":
        if not (bench.folder / "bundle").exists():
            bench.say("export", "--model", bench.folder / "whole/model", "--out", bench.folder / "bundle", "--quiet")
        command = ["import", "--langcell", bench.folder / "bundle", "--genes", bench.folder / "g.tsv", "--threads", 1, "--out", out]
    else:
        shutil.copy(bench.folder / "few.h5ad", folder / "a.h5ad")
        command = bench.reading(kind, folder / "a.h5ad", out)
    command[command.index("--threads") + 1] = 2
    return command, lambda: None if not out.exists() else hashes(out, "*.safetensors") if out.is_dir() else digest(folder, out.name)


def limited(bench, command, limit):
    return subprocess.run(["prlimit", f"--as={limit * MIB}", bench.binary, *map(str, command)], capture_output=True, text=True, timeout=120)


def least(works, low, high):
    """The least limit in MiB, to within four, with which something works."""
    while high - low > 4:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


def memory_limits(bench, kind):
    """Falling limits, and the result of the undisturbed command."""

    def works(limit):
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            command, result = memory_place(bench, kind, pathlib.Path(folder))
            return limited(bench, command, limit).returncode == 0 and result() or None

    starts = least(lambda limit: limited(bench, ["--version"], limit).returncode == 0, 0, 1 << 14)
    enough = least(works, starts, 1 << 14)
    print(f"memory-{kind}: starts with {starts} MiB, succeeds with {enough} MiB", flush=True)
    return [enough - (enough - starts) * i // LIMITS for i in range(1, LIMITS + 1)], works(1 << 14)


def memory_point(bench, kind, limit, wanted):
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        command, result = memory_place(bench, kind, pathlib.Path(folder))
        try:
            done = limited(bench, command, limit)
        except subprocess.TimeoutExpired:
            return {"right": False, "said": "hangs", "limit": limit}
        made, left = result(), [str(p) for p in pathlib.Path(folder).rglob("*.partial-*")]
        clean = made == wanted if done.returncode == 0 else done.returncode == 5 and one_line(done) and made is None
        again = limited(bench, command, 1 << 14) if made is None else done
        said = (done.stderr.strip().splitlines() or [""])[-1][:300]
        right = clean and not left and again.returncode == 0 and result() == wanted
        return {"code": done.returncode, "limit": limit, "right": right, "left": left, "said": said}


def clock_point(bench, number):
    """Trains six steps, resumes to twelve; progress is read, so the run is not quiet."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        run, log, said = pathlib.Path(folder) / "run", pathlib.Path(folder) / "log", ""
        environment = os.environ | {"LD_PRELOAD": str(bench.library.with_name("libclock.so")), "CLOCK_SEED": str(number), "CLOCK_LOG": str(log)}
        codes = []
        for steps in (6, 12):
            command = [str(x) for x in (bench.binary, *bench.training(run, steps, 2, 'validate.every=3', 'data.holdout=0.1')) if x != "--quiet"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            codes.append(done.returncode)
            said += done.stderr
            if steps == 6:
                shutil.rmtree(run / "model", ignore_errors=True)  # else there is nothing to resume
        info = subprocess.run([bench.binary, "info", run, "--json"], env=environment, capture_output=True, text=True, timeout=60)
        lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
        times = [v for line in lines for k, v in line.items() if k in ("samples_per_s", "tokens_per_s", "data_s", "step_s", "seconds")]
        below = [t for t in times if t < 0] + re.findall(r"-[0-9.]+(?= cells/s| tokens/s| left| s\b| min| h\b)", said)
        jumps = sum(int(line.split()[1]) for line in log.read_text().splitlines())
        same = hashes(run / "model", "*.safetensors") == bench.clock_weights
        right = codes == [0, 0] and info.returncode == 0 and same and not below and len(times) > 12
        return {"right": right, "killed": jumps > 0, "jumps": jumps, "below": below, "said": said[-200:]}


def run_point(bench, number):
    chance = random.Random(number)
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        run, kills = pathlib.Path(folder) / "run", 0
        command = [str(x) for x in (bench.binary, *bench.training(run, 2))]
        for _ in range(3):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, 0.25))
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        done = subprocess.run(command, capture_output=True, text=True)
        right = done.returncode == 0 and hashes(run / "model", "*.safetensors") == bench.weights and not list(run.rglob("*.partial-*"))
        return {"killed": kills > 0, "right": right, "said": done.stderr.strip()[-200:]}


def state_of(process):
    """The parent and the letter that says whether it runs; none when it is gone."""
    try:
        with open(f"/proc/{process}/stat") as stat:
            words = stat.read().rsplit(")", 1)[1].split()
        return int(words[1]), words[0]
    except OSError:
        return None


def mpirun(bench, *ranks):
    """One job of ranks, each given as (how many, words before the program, its command)."""
    words = ["mpirun"]
    for number, before, command in ranks:
        words += [":"] * (len(words) > 1) + ["-np", str(number), *map(str, before), str(bench.binary), *map(str, command)]
    return words


def three_ranks(bench, run):
    return mpirun(bench, (3, (), bench.training(run, 12, 1, "train.batch_size=12", "ranks.silence_s=2")))


def ended_together(words, run, weights):
    done = subprocess.run(words, env=os.environ | RANKS_ENVIRONMENT, capture_output=True, text=True, timeout=120)
    left, same = [str(p.relative_to(run)) for p in run.rglob("*.partial-*")], hashes(run / "model", "*.safetensors") == weights
    said = done.stderr.strip()[-200:] + ("" if same else " other weights") + (f" left: {left}" if left else "")
    return done.returncode == 0 and same and not left, said


def ranks_point(bench, number, how):
    chance = random.Random(number)
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        run = pathlib.Path(folder) / "run"
        process = subprocess.Popen(three_ranks(bench, run), env=os.environ | RANKS_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(chance.uniform(0.2, 1.0) * bench.ranks_seconds)
        ranks = [int(p) for p in os.listdir("/proc") if p.isdigit() and (state_of(p) or (0, ""))[0] == process.pid]
        hit, begin = False, time.monotonic()
        if ranks:
            os.kill(chance.choice(sorted(ranks)), how)
            hit = True
        try:
            _, said = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            for p in (process.pid, *ranks):
                os.kill(p, signal.SIGKILL)
            return {"killed": hit, "right": False, "said": "hangs"}
        while any((state_of(p) or (0, "Z"))[1] != "Z" for p in ranks) and time.monotonic() - begin < 60:
            time.sleep(0.01)
        gone = time.monotonic() - begin - (2 if how == signal.SIGSTOP else 0)
        hit = hit and process.returncode != 0  # else it had ended before
        named = said.count("hangs: no sign of life" if how == signal.SIGSTOP else "is lost: its process ended")
        same, again = ended_together(three_ranks(bench, run), run, bench.ranks_weights)
        right = same and gone <= 5 and (how == signal.SIGKILL or not hit or process.returncode == 6)
        return {"killed": hit, "right": right, "gone_s": round(gone, 3), "code": process.returncode, "named": named, "said": again}


RESUMED = (200, 1, "train.batch_size=12", "stage1.steps=50", "stage2.steps=150", "checkpoint.keep=200")


def resume_point(bench, number):
    """From the checkpoint of one step alone, as two ranks left it."""
    whole, name = bench.folder / "each", sorted(os.listdir(bench.folder / "each/checkpoints"))[number - 1]
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        run = pathlib.Path(folder) / "run"
        (run / "checkpoints").mkdir(parents=True)
        for file in ("config.resolved.toml", "manifest.json", "train.jsonl"):
            shutil.copy(whole / file, run)
        shutil.copytree(whole / "checkpoints" / name, run / "checkpoints" / name)
        same, said = ended_together(mpirun(bench, (2, (), bench.training(run, *RESUMED, "checkpoint.every=0"))), run, bench.ranks_weights)
        return {"killed": True, "right": same, "said": said}


def full_point(bench, number):
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        run = pathlib.Path(folder) / "run"
        shutil.copytree(bench.folder / "half", run)
        command = bench.training(run, 2)
        fault = ["env", f"LD_PRELOAD={bench.library}", f"FAIL_UNDER={run}/checkpoints", f"FAIL_HOW={errno.ENOSPC}", f"FAIL_AT={number}", f"FAIL_CALLS={WRITING}"]
        done = subprocess.run(mpirun(bench, (1, fault, command), (1, (), command)), env=os.environ | RANKS_ENVIRONMENT, capture_output=True, text=True, timeout=60)
        lines = [line for line in done.stderr.splitlines() if line.startswith("langcell:")]
        clean = done.returncode == 0 or (done.returncode == 5 and len(lines) == 1)
        same, said = ended_together(mpirun(bench, (2, (), command)), run, bench.ranks_weights)
        return {"code": done.returncode, "right": clean and same, "said": said or (lines or [""])[-1][:300]}


def count(bench, kind, calls):
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        command, under, whole = bench.place(kind, pathlib.Path(folder))
        log = bench.folder / f"count-{os.path.basename(folder)}"
        done = bench.run(command, under, calls=calls, log=log, **where(kind))
        if done.returncode or not whole():
            sys.exit(f"chaos: the undisturbed {kind} does not give the same result: {done.stderr}")
        total = max(int(line.split()[0]) for line in log.read_text().splitlines())
        log.unlink()
        return total


def points(bench, campaign, every):
    """(number, what to do) for each point of a campaign."""
    unsaid, every = every is None, every or 1
    if campaign == "run":
        return [(n, lambda n=n: run_point(bench, n)) for n in range(1, 1 + 1000 // every)]
    if campaign in ("ranks", "hang-ranks"):
        run = bench.fresh("three")
        bench.learn(run, three_ranks(bench, run))
        how = signal.SIGKILL if campaign == "ranks" else signal.SIGSTOP
        return [(n, lambda n=n: ranks_point(bench, n, how)) for n in range(1, 1 + 300 // every)]
    if campaign == "resume-ranks":
        run = bench.fresh("each")
        bench.learn(run, mpirun(bench, (2, (), bench.training(run, *RESUMED))))
        return [(n, lambda n=n: resume_point(bench, n)) for n in range(1, 201, every)]
    if campaign == "full-ranks":
        run = bench.fresh("two")
        shutil.copytree(bench.folder / "half", run)
        bench.learn(run, mpirun(bench, (2, (), bench.training(run, 2))))
        return [(n, lambda n=n: full_point(bench, n)) for n in range(1, count(bench, "save", WRITING) + 1, every)]
    if campaign == "clock":
        run = bench.fresh("clock")
        bench.say(*bench.training(run, 12, 2, "validate.every=3", "data.holdout=0.1"))
        bench.clock_weights = hashes(run / "model", "*.safetensors")
        return [(n, lambda n=n: clock_point(bench, n)) for n in range(1, 101, every)]
    if campaign.startswith("memory-"):
        kind = campaign.removeprefix("memory-")
        limits, wanted = memory_limits(bench, kind)
        return [(n, lambda limit=limit: memory_point(bench, kind, limit, wanted)) for n, limit in list(enumerate(limits, 1))[::every]]
    if campaign in ("save", "annotate"):
        return [(n, lambda n=n: kill_point(bench, campaign, n)) for n in range(1, count(bench, campaign, ALL) + 1, every)]
    fault, kind = campaign.split("-", 1)
    total = count(bench, kind, FAULTS[fault][1])
    step = max(total // 1500, 1) if fault == "enomem" and unsaid else every  # allocations are many: 1,500 of them, spread evenly
    return [(n, lambda n=n: fault_point(bench, kind, fault, n)) for n in range(1, total + 1, step)]


CAMPAIGNS = ["save", "annotate", "run", "ranks", "hang-ranks", "resume-ranks", "full-ranks", "clock"]
CAMPAIGNS += [f"memory-{kind}" for kind in ("pretrain", "tokenize", "annotate", "import")]
CAMPAIGNS += [
    f"{fault}-{kind}" for kind in ("save", "annotate", "start", "tokenize-reader", "annotate-reader") for fault in FAULTS if fault != "kill" or "reader" in kind]


def table(log):
    sums, gone = collections.defaultdict(lambda: [0, 0, 0]), collections.defaultdict(list)
    for line in map(json.loads, log.read_text().splitlines() if log.exists() else []):
        row = sums[line["campaign"]]
        row[0] += 1
        row[1] += line.get("killed", False) or line.get("code", 0) != 0
        row[2] += not line["right"]
        if line.get("killed") and "gone_s" in line:
            gone[line["campaign"]].append(line["gone_s"])
    lines = ["| campaign | points | ended by the fault | wrong |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {name} | {row[0]} | {row[1]} | {row[2]} |" for name, row in sums.items()]
    for name, seconds in gone.items():
        seconds.sort()
        lines.append(f"{name}: seconds until all were gone: median {seconds[len(seconds) // 2]}, 99th percentile {seconds[(len(seconds) * 99 - 1) // 100]}, "
                     f"longest {seconds[-1]}")
    return "\n".join(lines), sum(row[2] for row in sums.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--log", type=pathlib.Path, default=TOP / "build/chaos.jsonl")
    parser.add_argument("--folder", type=pathlib.Path, default=TOP / "build/chaos")
    parser.add_argument("--binary", type=pathlib.Path, default=TOP / "build/bin/langcell")
    parser.add_argument("--only", nargs="*", default=CAMPAIGNS, choices=CAMPAIGNS)
    parser.add_argument("--every", type=int, help="only each so-manieth point (default: all, of allocations 1,500 at most)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    bench = Bench(options.folder.resolve(), options.binary.resolve(), TOP / "build/tests/libfail.so")
    end = time.monotonic() + 60 * options.minutes
    known = {(x["campaign"], x["point"]) for x in map(json.loads, options.log.read_text().splitlines())} if options.log.exists() else set()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool, open(options.log, "a") as log:

        def one(campaign, number, work):
            if time.monotonic() > end or (campaign, number) in known:
                return
            result = {"campaign": campaign, "point": number, **work()}
            log.write(json.dumps(result) + "\n")
            log.flush()
            if not result["right"]:
                print(f"{campaign} {number}: {result}", flush=True)

        for campaign in options.only:
            if time.monotonic() < end:
                list(pool.map(lambda p: one(campaign, *p), points(bench, campaign, options.every)))
    text, wrong = table(options.log)
    print(text)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
