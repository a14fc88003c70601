"""Short forms of the campaigns of tools/chaos.py (docs/reliability.md): calls that fail inside the process that reads files, little memory, a clock that jumps."""

import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def campaign(binary, tmp_path_factory):
    """campaign(name, every): points tried, and how many of them ended early, or saw the clock jump; none was wrong."""
    folder = tmp_path_factory.mktemp("chaos")

    def run(name, every):
        places = ["--log", str(folder / f"{name}.jsonl"), "--folder", str(folder / "bench"), "--binary", str(binary)]
        words = [sys.executable, str(TOP / "tools/chaos.py"), "--only", name, "--every", str(every), "--jobs", "2", *places]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        row = done.stdout.splitlines()[-1].split("|")
        return int(row[2]), int(row[3])

    return run


@pytest.mark.parametrize("kind", ["tokenize", "annotate"])
@pytest.mark.parametrize(("fault", "every"), [("kill", 61), ("eio", 29), ("enospc", 11), ("short", 47), ("enomem", 997)])
def test_a_call_that_fails_in_the_reader_is_one_line_with_the_files_name(campaign, kind, fault, every):
    tried, ended = campaign(f"{fault}-{kind}-reader", every)
    assert tried >= 3
    assert (ended > 0) == (fault != "short")


@pytest.mark.parametrize("kind", ["pretrain", "tokenize", "annotate", "import"])
def test_little_memory_is_5_and_one_line(campaign, kind):
    tried, ended = campaign(f"memory-{kind}", 7)
    assert tried == 3
    assert ended > 0


def test_a_clock_that_jumps_changes_nothing(campaign):
    assert campaign("clock", 50) == (2, 2)
