"""Several ranks by mpirun: the losses of one rank, equal bits, stop and resume, and no rank that outlives another."""

import errno
import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from conftest import TOP
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
    "ranks.silence_s=3",
]
LIBRARY = TOP / "build" / "tests" / "libfail.so"
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


def errors_of(said):
    return [line for line in said.splitlines() if line.startswith("langcell:")]


def exits(run):
    return {json.loads(f.read_text())["rank"]: json.loads(f.read_text()) for f in (run / "exits").iterdir()}


def wait_until_gone(processes, begin, within):
    while any(is_alive(pid) for pid in processes):
        assert time.monotonic() - begin < within
        time.sleep(0.01)


def finish(process, code=0, within=120):
    _, said = process.communicate(timeout=within)
    assert process.returncode == code, said
    return said


def run_both(first, second):
    words = ["mpirun", "-np", "1", *first, ":", "-np", "1", *second]
    return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


def failing(call, at, how, under, command):
    """The command as one whose n-th call of this name below a folder fails with this errno, or is late."""
    return ["env", f"LD_PRELOAD={LIBRARY}", f"FAIL_UNDER={under}", f"FAIL_HOW={how}", f"FAIL_AT={at}", f"FAIL_CALLS={call}", *command]


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


@pytest.fixture(scope="module")
def three(binary, corpus, tmp_path_factory):  # noqa: F811
    run = tmp_path_factory.mktemp("three") / "run"
    train(3, binary, corpus, run)
    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stopped_run_leaves_with_75_and_resumes_to_the_same_bits(binary, corpus, pair, tmp_path, number):  # noqa: F811
    run = tmp_path / "run"
    process = start(2, binary, corpus, run)
    wait_for_step(run, 7, process)
    os.kill(children_of(process.pid)[1], number)  # one rank hears of it, all stop
    said = finish(process, code=75)
    assert len(errors_of(said)) == 1 and "--resume continues" in errors_of(said)[0], said
    assert {end["code"] for end in exits(run).values()} == {75}
    assert not (run / "model").exists()
    train(2, binary, corpus, run, "--resume")
    assert weights(run) == weights(pair)
    assert not (run / "exits").exists()


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_rank_ends_all_and_the_run_resumes_to_the_same_bits(binary, corpus, three, tmp_path, victim):  # noqa: F811
    run = tmp_path / "run"
    process = start(3, binary, corpus, run)
    wait_for_step(run, 9, process)
    ranks = children_of(process.pid)
    os.kill(ranks[victim], signal.SIGKILL)
    begin = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert process.returncode != 0
    wait_until_gone(ranks, begin, within=5)
    found = exits(run)
    assert set(found) == {0, 1, 2} - {victim}
    for end in found.values():
        assert end["code"] == 6 and f"rank {victim} is lost" in end["reason"], end
        assert end["collectives"][-1]["name"]
    assert len(errors_of(said)) == 1 and f"rank {victim} is lost" in errors_of(said)[0], said
    train(3, binary, corpus, run, "--resume")
    assert weights(run) == weights(three)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_hung_rank_is_named_and_ended_with_all_others(binary, corpus, three, tmp_path, victim):  # noqa: F811
    run = tmp_path / "run"
    process = start(3, binary, corpus, run)
    wait_for_step(run, 9, process)
    ranks = children_of(process.pid)
    os.kill(ranks[victim], signal.SIGSTOP)
    begin = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 6, said
    wait_until_gone(ranks, begin, within=3 + 5)  # ranks.silence_s, and the end
    assert time.monotonic() - begin > 2.5
    assert len(errors_of(said)) == 1 and f"rank {victim} hangs: no sign of life for 3." in errors_of(said)[0], said
    for rank, end in exits(run).items():
        assert rank == victim or (end["code"] == 6 and f"rank {victim} hangs" in end["reason"]), end
    train(3, binary, corpus, run, "--resume")
    assert weights(run) == weights(three)


def test_a_rank_that_rests_for_less_than_the_allowed_silence_disturbs_nothing(binary, corpus, three, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    process = start(3, binary, corpus, run)
    wait_for_step(run, 9, process)
    ranks = children_of(process.pid)
    for pid in (ranks[1], ranks[0]):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1)
        os.kill(pid, signal.SIGCONT)
    finish(process)
    assert weights(run) == weights(three)


def test_a_checkpoint_that_takes_long_is_waited_for_and_reported(binary, corpus, pair, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    one = rank_command(binary, corpus, run, "--set", "ranks.silence_s=2")
    done = run_both(failing("fsync", 1, "late", run / "checkpoints", one), one)
    assert done.returncode == 0, done.stderr
    reports = [line for line in done.stderr.splitlines() if line.startswith("warning: ranks have waited")]
    assert reports and all("rank 0 lives and does not come" in line for line in reports), done.stderr
    assert weights(run) == weights(pair)


def test_a_rank_that_lives_and_does_not_come_is_given_up_after_the_timeout(binary, corpus, pair, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    one = rank_command(binary, corpus, run, "--set", "ranks.timeout_s=2")
    begin = time.monotonic()
    done = run_both(failing("fsync", 1, "late", run / "checkpoints", one), one)
    assert done.returncode == 6, done.stderr
    assert time.monotonic() - begin < 30
    assert len(errors_of(done.stderr)) == 1 and "rank 0 lives and does not come" in errors_of(done.stderr)[0], done.stderr
    assert {end["code"] for end in exits(run).values()} == {6}
    train(2, binary, corpus, run, "--resume")
    assert weights(run) == weights(pair)


def test_a_run_resumes_from_each_step_to_the_same_bits(binary, corpus, pair, tmp_path):  # noqa: F811
    whole = tmp_path / "whole"
    train(2, binary, corpus, whole, "--set", "checkpoint.every=1", "--set", "checkpoint.keep=24")
    assert weights(whole) == weights(pair)
    kept = sorted((whole / "checkpoints").iterdir())
    assert len(kept) == 24
    for checkpoint in (kept[0], kept[3], kept[4], kept[13], kept[22]):
        run = tmp_path / checkpoint.name
        shutil.copytree(whole, run, ignore=shutil.ignore_patterns("model", "checkpoints"))
        shutil.copytree(checkpoint, run / "checkpoints" / checkpoint.name)
        train(2, binary, corpus, run, "--resume")
        assert weights(run) == weights(pair), checkpoint.name


@pytest.mark.parametrize(
    ("call", "at", "number"), [("write", 5, errno.ENOSPC), ("write", 20, errno.EDQUOT), ("fsync", 1, errno.EIO), ("mkdir", 1, errno.EROFS)]
)
def test_a_checkpoint_that_cannot_be_written_ends_all_with_5_and_one_line(binary, corpus, pair, tmp_path, call, at, number):  # noqa: F811
    run = tmp_path / "run"
    process = start(2, binary, corpus, run)
    wait_for_step(run, 7, process)
    os.kill(children_of(process.pid)[0], signal.SIGTERM)
    finish(process, code=75)
    before = sorted(os.listdir(run / "checkpoints"))
    more = rank_command(binary, corpus, run, "--resume")
    done = run_both(failing(call, at, number, run / "checkpoints", more), more)
    assert done.returncode == 5, done.stderr
    assert len(errors_of(done.stderr)) == 1, done.stderr
    assert str(run / "checkpoints") in errors_of(done.stderr)[0] and os.strerror(number) in errors_of(done.stderr)[0]
    assert sorted(os.listdir(run / "checkpoints")) == before
    assert {end["code"] for end in exits(run).values()} == {5}
    assert exits(run)[1]["reason"].startswith("rank 0: ")
    train(2, binary, corpus, run, "--resume")
    assert weights(run) == weights(pair)


def test_a_limit_on_the_size_of_files_ends_all_with_5_and_one_line(binary, corpus, pair, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    one = rank_command(binary, corpus, run)
    done = run_both(["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *one], one)
    assert done.returncode == 5, done.stderr
    assert len(errors_of(done.stderr)) == 1 and "File too large" in done.stderr, done.stderr
    train(2, binary, corpus, run, "--resume")
    assert weights(run) == weights(pair)


def test_a_number_that_is_none_ends_all_with_7_and_names_step_ranks_and_samples(binary, corpus, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    said = train(3, binary, corpus, run, "--set", "stage1.lr=1e30", code=7)
    assert len(errors_of(said)) == 1, said
    assert "stage 1, step 2, on every rank: " in said and "; samples " in said
    assert {rank: end["code"] for rank, end in exits(run).items()} == {0: 7, 1: 7, 2: 7}


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


@pytest.mark.parametrize(
    ("value", "word"), [("train.batch_size=13", "wanted a multiple of 2 ranks"), ("train.batchsize=12", "did you mean train.batch_size")]
)
def test_what_is_wrong_on_all_ranks_is_said_once(binary, corpus, tmp_path, value, word):  # noqa: F811
    said = train(2, binary, corpus, tmp_path / "run", "--set", value, code=2)
    assert len(errors_of(said)) == 1 and word in errors_of(said)[0], said


@pytest.mark.parametrize(
    "words",
    [
        ["annotate", "a.h5ad", "--model", "m", "--texts", "t.json", "--out", "o.h5ad"],
        ["train", "a.h5ad", "--texts", "t.json", "--label-key", "cell_type", "--out", "m"],
    ],
)
def test_a_command_of_one_process_refuses_several(binary, tmp_path, words):
    done = subprocess.run(["mpirun", "-np", "3", str(binary), *words], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert len(errors_of(done.stderr)) == 1 and "start it without mpirun" in done.stderr
    assert not os.listdir(tmp_path)
    subprocess.run(["mpirun", "-np", "2", str(binary), words[0], "--help"], env=ENVIRONMENT, check=True, capture_output=True)


@pytest.mark.parametrize("variables", [{"OMPI_COMM_WORLD_SIZE": "1"}, {"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1"}])
def test_one_task_of_a_launcher_runs_without_mpi(binary, corpus, alone, tmp_path, variables):  # noqa: F811
    subprocess.run(rank_command(binary, corpus, tmp_path / "run"), env=os.environ | variables, check=True, capture_output=True)
    assert weights(tmp_path / "run") == weights(alone)


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
