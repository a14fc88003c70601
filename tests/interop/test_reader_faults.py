"""Calls that fail inside the process that reads files: a short form of tools/chaos.py (docs/reliability.md). Every n-th of them, another n for each kind."""

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return tmp_path_factory.mktemp("chaos")


@pytest.mark.parametrize("kind", ["tokenize", "annotate"])
@pytest.mark.parametrize(("fault", "every"), [("kill", 61), ("eio", 29), ("enospc", 11), ("short", 47), ("enomem", 997)])
def test_a_call_that_fails_in_the_reader_is_one_line_with_the_files_name(binary, bench, kind, fault, every):
    done = subprocess.run(
        [sys.executable, str(TOP / "tools/chaos.py"), "--only", f"{fault}-{kind}-reader", "--every", str(every), "--log", str(bench / f"{fault}-{kind}.jsonl"),
         "--folder", str(bench / "folder"), "--binary", str(binary), "--jobs", "2"],
        capture_output=True, text=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    row = done.stdout.splitlines()[-1].split("|")
    assert int(row[2]) >= 3 and (int(row[3]) > 0) == (fault != "short"), done.stdout
