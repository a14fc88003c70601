"""A run that is killed and resumed ends in the same weights, byte by byte; a run that is asked to stop leaves with 75."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import time

import pytest

SETTINGS = [
    'model.preset="tiny"',
    "data.max_cell_tokens=64",
    "data.max_text_tokens=64",
    "train.batch_size=8",
    "stage1.steps=12",
    "stage2.steps=24",
    "checkpoint.every=3",
    "train.log_every=1",
    "stage1.share_pass=true",
]


@pytest.fixture(scope="module")
def corpus(langcell, tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    langcell(
        "simulate", "--out", folder / "a.h5ad", "--texts", folder / "t.json", "--cells", 120, "--genes", 1200, "--types", 4, "--seed", 1
    )
    langcell("vocab", "--from", folder / "a.h5ad", "--out", folder / "g.tsv")
    langcell(
        "tokenize",
        folder / "a.h5ad",
        "--genes",
        folder / "g.tsv",
        "--out",
        folder / "c.h5",
        "--texts",
        folder / "t.json",
        "--label-key",
        "cell_type",
    )
    return folder / "c.h5"


def command(binary, corpus, run, *more):
    sets = [word for s in SETTINGS + [f'data.corpus=["{corpus}"]'] for word in ("--set", s)]
    return [str(binary), "pretrain", "--run", str(run), "--quiet", "--threads", "1", *sets, *map(str, more)]


def weights(run):
    return {f.relative_to(run): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted((run / "model").rglob("*.safetensors"))}


def wait_for(path, process):
    while not path.exists() or not path.read_text():
        assert process.poll() is None
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(binary, corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    start = time.monotonic()
    subprocess.run(command(binary, corpus, run), check=True, capture_output=True)
    return run, time.monotonic() - start


def test_two_runs_give_equal_bits(binary, corpus, undisturbed, tmp_path):
    subprocess.run(command(binary, corpus, tmp_path / "run"), check=True, capture_output=True)
    assert weights(tmp_path / "run") == weights(undisturbed[0])


@pytest.mark.parametrize("attempt", range(20))
def test_a_killed_run_resumes_to_the_same_weights(binary, corpus, undisturbed, tmp_path, attempt):
    chance = random.Random(attempt)
    run = tmp_path / "run"
    process = subprocess.Popen(command(binary, corpus, run, "--resume"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(chance.uniform(0.1, 1.0) * undisturbed[1])
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command(binary, corpus, run, "--resume"), check=True, capture_output=True)
    assert weights(run) == weights(undisturbed[0])
    assert not list(run.rglob("*.partial-*"))
    steps = [
        (line["stage"], line["step"]) for line in map(json.loads, (run / "train.jsonl").read_text().splitlines()) if "event" not in line
    ]
    assert steps == sorted(set(steps)) and steps[-1] == (2, 24)


def test_a_run_that_is_asked_to_stop_leaves_a_checkpoint_and_75(binary, corpus, undisturbed, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(command(binary, corpus, run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(run / "train.jsonl", process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "--resume continues" in errors
    subprocess.run(command(binary, corpus, run, "--resume"), check=True, capture_output=True)
    assert weights(run) == weights(undisturbed[0])


def test_cells_drawn_by_type_come_in_the_same_order_after_a_resume(binary, corpus, undisturbed, tmp_path):
    by_type = ["--set", 'data.sampling="sqrt_type"', "--set", 'stage2.decay="constant"', "--set", "stage2.warmup=0"]
    whole = subprocess.run([w for w in command(binary, corpus, tmp_path / "whole", *by_type) if w != "--quiet"], capture_output=True, text=True, timeout=60)
    assert whole.returncode == 0 and "sampling by type: 4 types" in whole.stderr, whole.stderr
    for steps in (7, 24):
        subprocess.run(command(binary, corpus, tmp_path / "parts", *by_type, "--set", f"stage2.steps={steps}", "--resume"), check=True, timeout=60)
        if steps == 7:
            shutil.rmtree(tmp_path / "parts/model")  # else there is nothing to do
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole") != weights(undisturbed[0])
    shutil.rmtree(tmp_path / "whole/model")
    changed = subprocess.run(command(binary, corpus, tmp_path / "whole", *by_type[2:], "--resume"), capture_output=True, text=True, timeout=60)
    assert changed.returncode == 2 and "data.sampling" in changed.stderr


def test_a_finished_run_resumed_has_nothing_to_do(binary, corpus, undisturbed):
    before = weights(undisturbed[0])
    subprocess.run(command(binary, corpus, undisturbed[0], "--resume"), check=True, capture_output=True)
    assert weights(undisturbed[0]) == before


def test_a_used_folder_and_a_changed_configuration_are_refused(binary, corpus, undisturbed, tmp_path):
    assert subprocess.run(command(binary, corpus, undisturbed[0]), capture_output=True).returncode == 2
    run = tmp_path / "run"
    subprocess.run(command(binary, corpus, run, "--set", "stage2.steps=0"), check=True, capture_output=True)
    (run / "model/MANIFEST.json").unlink()
    changed = subprocess.run(command(binary, corpus, run, "--resume", "--set", "stage1.lr=0.5"), capture_output=True, text=True)
    assert changed.returncode == 2 and "stage1.lr" in changed.stderr


def test_a_second_process_in_a_run_folder_is_refused(binary, corpus, undisturbed, tmp_path):
    run = tmp_path / "run"
    first = subprocess.Popen(command(binary, corpus, run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(run / "train.jsonl", first)
    second = subprocess.run(command(binary, corpus, run, "--resume"), capture_output=True, text=True)
    assert second.returncode == 5, second.stderr
    assert "another process is at work in this folder" in second.stderr and str(run) in second.stderr
    assert first.wait() == 0
    assert weights(run) == weights(undisturbed[0])  # the second one disturbed nothing


def test_a_second_signal_ends_at_once_and_the_run_resumes(binary, corpus, undisturbed, tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(command(binary, corpus, run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(run / "train.jsonl", process)
    for _ in range(200):
        process.send_signal(signal.SIGTERM)
        if process.poll() is not None:
            break
        time.sleep(0.002)
    assert process.wait(10) in (-signal.SIGTERM, 75)
    subprocess.run(command(binary, corpus, run, "--resume"), check=True, capture_output=True)
    assert weights(run) == weights(undisturbed[0])
