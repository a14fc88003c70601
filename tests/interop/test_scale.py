"""Corpora of many files: the samples of one long file, in memory that does not grow with the cells, and a clear word when a file is cut."""

import json
import os
import shutil
import subprocess

import h5py
import pytest
from test_ranks import ENVIRONMENT, losses
from test_training import wait_for, weights

SETTINGS = [
    'model.preset="tiny"',
    "data.max_cell_tokens=32",
    "data.max_text_tokens=64",
    "data.holdout=0.5",
    'data.holdout_by="donor_id"',
    "train.batch_size=8",
    'train.precision="fp32"',
    "train.log_every=1",
    "stage1.steps=8",
    "stage2.steps=8",
    "checkpoint.every=3",
]


def simulate(langcell, folder, cells, cells_per_file, **more):
    options = {"genes": 200, "types": 4, "seed": 1, "texts": folder.parent / f"{folder.name}.json"} | more
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    done = langcell(
        "simulate", "--tokens-only", "--out", folder, "--cells", cells, "--cells-per-file", cells_per_file, "--json", "--quiet", *words
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def corpora(langcell, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    said = simulate(langcell, folder / "many", 601, 200)
    assert (said["files"], said["cells"]) == (4, 601)
    simulate(langcell, folder / "one", 601, 1000)
    return folder


def command(binary, corpus, run, *more):
    sets = [word for s in [*SETTINGS, f'data.corpus=["{corpus}"]'] for word in ("--set", s)]
    return [str(binary), "pretrain", "--run", str(run), "--quiet", "--threads", "1", *sets, *map(str, more)]


@pytest.fixture(scope="module")
def of_one_file(binary, corpora, tmp_path_factory):
    run = tmp_path_factory.mktemp("of_one_file") / "run"
    subprocess.run(command(binary, corpora / "one" / "cells-00000.h5", run), check=True, capture_output=True)
    return run


def test_files_hold_the_cells_of_one(corpora):
    whole = h5py.File(corpora / "one" / "cells-00000.h5")
    tokens, names, donors = [], [], []
    for path in sorted((corpora / "many").iterdir()):
        with h5py.File(path) as part:
            assert part["tokens"].chunks is None and part["offsets"].chunks is None
            tokens += part["tokens"][:].tolist()
            names += part["obs/name"][:].tolist()
            donors += part["obs/donor_id"][:].tolist()
    assert tokens == whole["tokens"][:].tolist()
    assert names == whole["obs/name"][:].tolist() and names[600] == b"cell000000601-" + donors[600]
    assert donors == whole["obs/donor_id"][:].tolist()


def test_many_files_train_as_one(binary, corpora, of_one_file, tmp_path):
    subprocess.run(command(binary, corpora / "many", tmp_path / "run"), check=True, capture_output=True)
    assert weights(tmp_path / "run") == weights(of_one_file)
    assert [d["cells"] for d in json.loads((tmp_path / "run" / "manifest.json").read_text())["data"]] == [200, 200, 200, 1]
    report = (tmp_path / "run" / "report.html").read_text()
    assert all(f"Training data: cells-0000{i}.h5" in report for i in range(4))


def test_many_files_on_two_ranks_have_the_losses_of_one_on_one(binary, corpora, of_one_file, tmp_path):
    subprocess.run(
        ["mpirun", "-np", "2", *command(binary, corpora / "many", tmp_path / "run")], check=True, capture_output=True, env=ENVIRONMENT
    )
    assert losses(tmp_path / "run") == pytest.approx(losses(of_one_file), rel=1e-4)


def test_ranks_that_see_other_files_refuse_to_run(langcell, binary, corpora, tmp_path):
    (tmp_path / "b").mkdir()
    simulate(langcell, tmp_path / "b" / "many", 601, 200, seed=2)
    own = command(binary, "many", tmp_path / "run")
    words = ["mpirun", "-np", "1", "-wdir", corpora, *own, ":", "-np", "1", "-wdir", tmp_path / "b", *own]
    done = subprocess.run(list(map(str, words)), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "rank 1 differs from rank 0" in done.stderr and "corpus" in done.stderr


def test_a_file_cut_short_meanwhile_ends_with_3_and_the_restored_run_resumes(binary, corpora, of_one_file, tmp_path):
    shutil.copytree(corpora / "many", tmp_path / "many")
    run, files = tmp_path / "run", sorted((tmp_path / "many").iterdir())
    kept = {path: path.read_bytes() for path in files}
    process = subprocess.Popen(command(binary, tmp_path / "many", run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(run / "train.jsonl", process)
    for path in files:
        os.truncate(path, 4096)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3, errors
    line = errors.strip().splitlines()[-1]
    assert line.startswith(f"langcell: error: {tmp_path}/many/cells-0000") and "cut short" in line
    cut = subprocess.run(command(binary, tmp_path / "many", run, "--resume"), capture_output=True, text=True)
    assert cut.returncode == 3 and "cells-00000.h5" in cut.stderr
    for path, content in kept.items():
        path.write_bytes(content)
    subprocess.run(command(binary, tmp_path / "many", run, "--resume"), check=True, capture_output=True)
    assert weights(run) == weights(of_one_file)


def test_a_run_does_not_resume_with_fewer_or_other_files(langcell, binary, corpora, tmp_path):
    shutil.copytree(corpora / "many", tmp_path / "many")
    run = tmp_path / "run"
    subprocess.run(command(binary, tmp_path / "many", run), check=True, capture_output=True)
    (run / "model" / "MANIFEST.json").unlink()
    (tmp_path / "many" / "cells-00003.h5").rename(tmp_path / "last.h5")
    fewer = subprocess.run(command(binary, tmp_path / "many", run, "--resume"), capture_output=True, text=True)
    assert fewer.returncode == 2 and "3 corpora, this run began with 4" in fewer.stderr
    (tmp_path / "many" / "cells-00000.h5").rename(tmp_path / "many" / "cells-00003.h5")
    (tmp_path / "last.h5").rename(tmp_path / "many" / "cells-00000.h5")
    other = subprocess.run(command(binary, tmp_path / "many", run, "--resume"), capture_output=True, text=True)
    assert other.returncode == 2 and "cells-00000.h5 is not the corpus this run began with" in other.stderr


def peak_mib(binary, corpus, run):
    process = subprocess.Popen(
        command(binary, corpus, run, "--set", "checkpoint.every=0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss / 1024


def test_memory_of_a_hundred_times_the_cells_is_about_the_same(langcell, binary, tmp_path):
    simulate(langcell, tmp_path / "few", 4_000, 1_000)
    simulate(langcell, tmp_path / "lots", 400_000, 100_000)
    few, lots = (peak_mib(binary, tmp_path / name, tmp_path / f"run-{name}") for name in ("few", "lots"))
    assert lots - few < 24, f"{few} MiB for 4,000 cells, {lots} MiB for 400,000: wanted at most 60 bytes a cell more"


def test_simulate_keeps_what_is_there_and_counts_no_billions(langcell, corpora, tmp_path):
    again = langcell("simulate", "--tokens-only", "--out", corpora / "one", "--texts", tmp_path / "t.json", "--cells", 10, code=2)
    assert "one" in again.stderr and not (tmp_path / "t.json").exists()
    many = langcell("simulate", "--out", tmp_path / "a.h5ad", "--texts", tmp_path / "t.json", "--cells", 10_000_001, code=2)
    assert "--tokens-only" in many.stderr
