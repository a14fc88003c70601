"""Several ranks by mpirun: the losses of one rank, equal bits, stop and resume, and no rank that outlives another."""

import json
import os
import signal
import subprocess
import time

import pytest
from test_training import corpus, weights  # noqa: F401  (corpus: a fixture)

SETTINGS = [
    'model.preset="tiny"',
    "data.max_cell_tokens=64",
    "data.max_text_tokens=64",
    "train.batch_size=12",
    'train.precision="fp32"',
    "stage1.steps=4",
    "stage2.steps=20",
    "checkpoint.every=3",
    "train.log_every=1",
]
ENVIRONMENT = os.environ | {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
}


def rank_command(binary, corpus, run, *more):
    sets = [word for s in SETTINGS + [f'data.corpus=["{corpus}"]'] for word in ("--set", s)]
    return [str(binary), "pretrain", "--run", str(run), "--quiet", "--threads", "1", *sets, *map(str, more)]


def start(ranks, binary, corpus, run, *more):
    return subprocess.Popen(
        ["mpirun", "-np", str(ranks), *rank_command(binary, corpus, run, *more)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, code=0, within=120):
    _, said = process.communicate(timeout=within)
    assert process.returncode == code, said
    return said


def run_both(first, second):
    words = ["mpirun", "-np", "1", *first, ":", "-np", "1", *second]
    return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


def train(ranks, binary, corpus, run, *more, code=0):
    return finish(start(ranks, binary, corpus, run, *more), code)


def losses(run):
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines]


def children_of(pid):
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat") as stat:
                if name.isdigit() and int(stat.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(name))
        except (OSError, IndexError, NotADirectoryError):
            continue
    return sorted(found)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for_step(run, step, process):
    log = run / "train.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < step:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.fixture(scope="module")
def alone(binary, corpus, tmp_path_factory):  # noqa: F811
    run = tmp_path_factory.mktemp("alone") / "run"
    subprocess.run(rank_command(binary, corpus, run), check=True, capture_output=True)
    return run


@pytest.fixture(scope="module")
def pair(binary, corpus, tmp_path_factory):  # noqa: F811
    run = tmp_path_factory.mktemp("pair") / "run"
    train(2, binary, corpus, run)
    return run


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_ranks_have_the_losses_of_one(binary, corpus, alone, tmp_path, ranks):  # noqa: F811
    train(ranks, binary, corpus, tmp_path / "run")
    one, many = losses(alone), losses(tmp_path / "run")
    assert len(one) == len(many) == 24
    assert many[0] == pytest.approx(one[0], rel=1e-6)
    assert many == pytest.approx(one, rel=1e-4)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["ranks"] == ranks


def test_two_runs_of_two_ranks_give_equal_bits(binary, corpus, pair, tmp_path):  # noqa: F811
    train(2, binary, corpus, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(pair)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_run_leaves_with_75_and_resumes_to_the_same_bits(binary, corpus, pair, tmp_path, number):  # noqa: F811
    run = tmp_path / "run"
    process = start(2, binary, corpus, run)
    wait_for_step(run, 7, process)
    os.kill(children_of(process.pid)[1], number)  # one rank hears of it, all stop
    finish(process, code=75)
    assert {json.loads(f.read_text())["code"] for f in (run / "exits").iterdir()} == {75}
    assert not (run / "model").exists()
    train(2, binary, corpus, run, "--resume")
    assert weights(run) == weights(pair)
    assert not (run / "exits").exists()


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_rank_ends_all_and_the_run_resumes_to_the_same_bits(binary, corpus, tmp_path, victim):  # noqa: F811
    train(3, binary, corpus, tmp_path / "whole")
    run = tmp_path / "run"
    process = start(3, binary, corpus, run)
    wait_for_step(run, 9, process)
    ranks = children_of(process.pid)
    os.kill(ranks[victim], signal.SIGKILL)
    begin = time.monotonic()
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert time.monotonic() - begin < 10
    while any(is_alive(pid) for pid in ranks):
        assert time.monotonic() - begin < 10
        time.sleep(0.01)
    train(3, binary, corpus, run, "--resume")
    assert weights(run) == weights(tmp_path / "whole")


def test_a_run_goes_on_with_another_number_of_ranks(binary, corpus, alone, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    for ranks, step in ((2, 6), (1, 12), (3, None)):
        process = start(ranks, binary, corpus, run, "--resume")
        if step is None:
            finish(process)
        else:
            wait_for_step(run, step, process)
            os.kill(children_of(process.pid)[0], signal.SIGTERM)
            finish(process, code=75)
    assert losses(run) == pytest.approx(losses(alone), rel=1e-4)


def test_a_rank_that_fails_alone_takes_the_others_with_it(binary, corpus, tmp_path):  # noqa: F811
    one = rank_command(binary, corpus, tmp_path / "run")
    other = [word.replace("c.h5", "absent.h5") for word in one]
    done = run_both(one, other)
    assert done.returncode == 3, done.stderr
    assert "rank 1: error: " in done.stderr and "absent.h5" in done.stderr


def test_ranks_that_differ_refuse_to_run(binary, corpus, tmp_path):  # noqa: F811
    one = rank_command(binary, corpus, tmp_path / "run")
    done = run_both(one, [*one, "--set", "train.seed=5"])
    assert done.returncode == 2, done.stderr
    assert "rank 1 differs from rank 0" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_divided_is_refused(binary, corpus, tmp_path):  # noqa: F811
    said = train(2, binary, corpus, tmp_path / "run", "--set", "train.batch_size=13", code=2)
    assert "wanted a multiple of 2 ranks" in said


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "mpirun"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}, "mpirun"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, "--mpi=pmix"),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, "Open MPI"),
    ],
)
def test_launchers_whose_ranks_cannot_meet_are_refused(binary, corpus, tmp_path, variables, advice):  # noqa: F811
    command = rank_command(binary, corpus, tmp_path / "run", "--device", "cpu")
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2, done.stderr
    assert advice in done.stderr
    assert not (tmp_path / "run").exists()


def test_ranks_on_gpus_want_gpus(binary, corpus, tmp_path):  # noqa: F811
    if "cuda:0" in subprocess.run([str(binary), "info"], capture_output=True, text=True).stdout:
        pytest.skip("this machine has a GPU")
    said = train(2, binary, corpus, tmp_path / "run", "--device", "cuda", code=5)
    assert "device cuda: " in said and "use --device cpu" in said
