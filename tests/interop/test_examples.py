"""The scripts of examples/, each started with two ranks; Slurm's two commands are stood in for by mpirun and by a note of what was asked."""

import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
from test_ranks import ENVIRONMENT, SETTINGS
from test_training import corpus, weights  # noqa: F401  (corpus: a fixture)

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
STEPS = 24


@pytest.fixture
def words(binary, corpus, tmp_path):  # noqa: F811
    """What follows the script's name, and the environment; `run.toml` is the example's with the settings of a small run over it."""
    sets = [word for s in SETTINGS + [f'data.corpus=["{corpus}"]', "train.accumulate=1"] for word in ("--set", s)]
    more = [str(tmp_path / "run"), str(EXAMPLES / "pretrain.toml"), "--quiet", "--threads", "1", "--device", "cpu", *sets]
    return more, ENVIRONMENT | {"LANGCELL": str(binary)}


def steps_of(run):
    return [json.loads(line)["step"] for line in (run / "train.jsonl").read_text().splitlines()]


def stop_after_four_steps(script, run):
    """SIGUSR1 to the launcher that `script` has started."""
    log = run / "train.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) >= 4):
        assert script.poll() is None
        time.sleep(0.02)
    launcher = subprocess.run(["pgrep", "-P", str(script.pid), "mpirun"], capture_output=True, text=True, check=True)
    os.kill(int(launcher.stdout.split()[0]), signal.SIGUSR1)


def stand_in(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/bash\n" + text)
    (folder / name).chmod(0o755)


def test_mpirun_trains_and_says_what_a_stop_means(words, tmp_path):
    more, environment = words
    script = [str(EXAMPLES / "mpirun.sh"), "2", *more]
    stopped = subprocess.Popen(script, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    stop_after_four_steps(stopped, tmp_path / "run")
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 75, said
    assert "the same command goes on" in said
    assert len(steps_of(tmp_path / "run")) < STEPS
    subprocess.run(script, env=environment, check=True, timeout=120)
    assert len(steps_of(tmp_path / "run")) == STEPS
    assert weights(tmp_path / "run")


def test_mpirun_does_not_try_bad_input_again(words):
    more, environment = words
    done = subprocess.run([str(EXAMPLES / "mpirun.sh"), "2", *more, "--set", "train.colour=1"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a rank was lost" not in done.stderr


def test_slurm_puts_a_stopped_job_back_into_the_queue(words, tmp_path):
    more, environment = words
    bin_, asked = tmp_path / "bin", tmp_path / "asked"
    stand_in(bin_, "srun", '[[ $1 == --mpi=pmix ]] || exit 99\nshift\nexec mpirun -np 2 "$@"\n')
    stand_in(bin_, "scontrol", f'echo "$@" >>{asked}\n')
    environment = environment | {"PATH": f"{bin_}:{os.environ['PATH']}", "SLURM_JOB_ID": "77"}
    script = ["bash", str(EXAMPLES / "slurm.sbatch"), *more]
    job = subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stop_after_four_steps(job, tmp_path / "run")
    said, errors = job.communicate(timeout=60)
    assert job.returncode == 75, said + errors
    assert "back into the queue (restart 1)" in said
    assert asked.read_text() == "requeue 77\n"
    subprocess.run(script, env=environment, check=True, timeout=120)
    assert asked.read_text() == "requeue 77\n"  # a finished job is not
    assert len(steps_of(tmp_path / "run")) == STEPS


@pytest.mark.parametrize("script", ["mpirun.sh", "slurm.sbatch", "torchrun.sh"])
def test_without_words_they_say_how_they_are_used(script):
    done = subprocess.run(["bash", str(EXAMPLES / script)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(("Pre-trains", "usage", "put back")) and "usage:" in done.stderr
