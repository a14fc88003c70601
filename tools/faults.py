#!/usr/bin/env python3
"""Plants every fault of tests/shim/faults/WORD.txt into the CUDA kernels, one at a time; the word's cases on the shim must see each of them.

usage: tools/faults.py [WORD ...] [--jobs 2] [--only TEXT ...] [--json FILE]      wants what tools/setup.sh installs; works in copies under build/faults
A fault is a block of lines: `FILE | what is wrong`, `- the text to replace` (once in the file, \\n for a line's end), `+ the new text`. A line
`harmless: reason` says that the cases need not see it. Exit code 1 when a fault that should be caught is not, or a harmless one is.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import re
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[1]


def faults_of(word):
    found = []
    for block in (TOP / "tests/shim/faults" / f"{word}.txt").read_text().split("\n\n"):
        fault = {"word": word, "harmless": ""}
        for line in filter(None, block.split("\n")):
            if line.startswith("- "):
                fault["old"] = line[2:]
            elif line.startswith("+ "):
                fault["new"] = line[2:]
            elif line.startswith("harmless: "):
                fault["harmless"] = line.removeprefix("harmless: ")
            else:
                fault["file"], fault["what"] = line.split(" | ", 1)
        if "old" not in fault or "new" not in fault or "file" not in fault:
            sys.exit(f"faults: {word}.txt: a block lacks a line:\n{block}")
        found.append(fault)
    return found


def pattern_of(old):
    """The text, with any white space where it has some: the formatter may break lines elsewhere."""
    parts = old.replace("\\n", "\n").split()
    return re.compile(r"\s+".join(map(re.escape, parts)))


def planted(text, fault):
    pattern = pattern_of(fault["old"])
    places = len(pattern.findall(text))
    if places != 1:
        sys.exit(f"faults: {fault['word']}.txt, '{fault['what']}': its text is {places} times in {fault['file']}, wanted once")
    return pattern.sub(lambda _: fault["new"].replace("\\n", "\n"), text)


def run(command, folder, limit):
    environment = os.environ | {"CCACHE_BASEDIR": str(folder), "CCACHE_NOHASHDIR": "1", "CMAKE_CXX_COMPILER_LAUNCHER": "ccache", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        return 124, "ran past its limit"


def prepare(number):
    """A copy of the tree with the cases built once."""
    folder = TOP / "build/faults" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=TOP, stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
    for name in filter(None, files):
        source, to = TOP / name, folder / name
        if not source.exists():
            continue
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.exists() or to.read_bytes() != source.read_bytes():
            to.write_bytes(source.read_bytes())
    for command in (["cmake", "--preset", "release", "-DLC_CUDA=OFF"], ["cmake", "--build", "build", "--target", "cuda_test"]):
        code, text = run(command, folder, 3600)
        if code:
            sys.exit(f"faults: {' '.join(command)} failed in {folder}:\n{text[-3000:]}")
    return folder


def judge(folder, fault):
    path = folder / "kernels/cuda" / fault["file"]
    whole = path.read_text()
    begin = time.monotonic()
    try:
        path.write_text(planted(whole, fault))
        code, text = run(["cmake", "--build", "build", "--target", "cuda_test"], folder, 600)
        if code:
            outcome = "does not compile"
        else:
            word = fault["word"].removesuffix("_sm90")
            hopper = fault["file"].startswith(("sm90/", "kept_bits"))
            cases = f"*HopperCases*_{word}_*:HopperNeighbours*:KeptBits*" if hopper else f"*CudaCases*_{word}_*:CudaNeighbours*:Tile.*"
            code, text = run(["build/tests/cuda_test", "--gtest_brief=1", "--gtest_fail_fast", f"--gtest_filter={cases}"], folder, 1200)  # minutes where others work too
            outcome = "passes" if code == 0 else "hangs" if code == 124 else "fails"
    finally:
        path.write_text(whole)
    said = next((line for line in text.splitlines() if "block (" in line or "differs between" in line or "exceeds" in line or "actual:" in line), "")
    return fault | {"outcome": outcome, "said": said.strip()[:200], "seconds": round(time.monotonic() - begin, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="*", default=[""], help="faults whose description contains one of these")
    parser.add_argument("--json")
    options = parser.parse_args()
    words = options.words or sorted(p.stem for p in (TOP / "tests/shim/faults").glob("*.txt"))
    faults = [f for word in words for f in faults_of(word) if any(text in f["what"] for text in options.only)]
    for fault in faults:
        planted((TOP / "kernels/cuda" / fault["file"]).read_text(), fault)

    folders = queue.Queue()
    for number in range(options.jobs):
        folders.put(prepare(number))

    def one(fault):
        folder = folders.get()
        try:
            result = judge(folder, fault)
        finally:
            folders.put(folder)
        caught = result["outcome"] in ("fails", "hangs")
        result["right"] = result["outcome"] != "does not compile" and caught != bool(fault["harmless"])
        mark = "" if result["right"] else "   <-- WRONG"
        print(f"{result['word']:<15} {result['file']:<22} {result['outcome']:<8} {result['what']}{' (harmless)' if fault['harmless'] else ''}{mark}", flush=True)
        return result

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(one, faults))
    wrong = [r for r in results if not r["right"]]
    harmless = sum(bool(r["harmless"]) for r in results)
    print(f"{len(results)} faults: {sum(r['outcome'] in ('fails', 'hangs') for r in results)} caught, {harmless} harmless, {len(wrong)} not as the lists say")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
