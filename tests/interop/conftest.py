"""What every interop test needs: the program, the shared data, a clear word where one is absent."""

import os
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def absent(message):
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def binary():
    path = Path(os.environ.get("LANGCELL_BIN", TOP / "build" / "bin" / "langcell"))
    if not path.is_file():
        pytest.fail(f"{path} is absent; run tools/setup.sh or set LANGCELL_BIN")
    return path


@pytest.fixture(scope="session")
def langcell(binary):
    """langcell("info", "--json", code=0): runs the program, expects the exit code, gives the finished process."""

    def run(*arguments, code=0):
        done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, timeout=600)
        assert done.returncode == code, f"exit {done.returncode}, wanted {code}: {done.stderr[-2000:]}"
        return done

    return run


@pytest.fixture(scope="session")
def shared():
    """shared("data/pbmc3k.h5ad"): a path below $LANGCELL_TEST_DATA, by default ../shared beside the source tree."""

    def path_of(name):
        path = Path(os.environ.get("LANGCELL_TEST_DATA") or TOP.parent / "shared") / name
        if not path.exists():
            absent(f"test data {path} is absent; set LANGCELL_TEST_DATA to the folder that holds {name}")
        return path

    return path_of
