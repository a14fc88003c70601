"""`langcell info RUN`: what a run is doing, has done, or died of; and that looking changes nothing."""

import json
import os
import signal
import subprocess
import time

import pytest
from test_ranks import train
from test_training import command, corpus, wait_for  # noqa: F401  (corpus: a fixture)


@pytest.fixture
def info(langcell):
    return lambda run: json.loads(langcell("info", run, "--json").stdout)


def start(binary, corpus, run, *more):  # noqa: F811
    process = subprocess.Popen(command(binary, corpus, run, *more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(run / "train.jsonl", process)
    return process


def picture(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *sorted(folder.rglob("*"))]
    }


LONG = ("--set", "stage1.steps=20000", "--set", "checkpoint.every=10")


def test_a_run_is_running_then_stopped_then_killed(binary, corpus, tmp_path, info, langcell):  # noqa: F811
    run = tmp_path / "run"
    process = start(binary, corpus, run, *LONG)
    while not list((run / "checkpoints").glob("stage1-step-000000?0/MANIFEST.json")):
        assert process.poll() is None
        time.sleep(0.01)
    now = info(run)
    assert now["state"] == "running" and not now["finished"]
    assert now["stage"] == 1 and 10 <= now["step"] < 20000 and now["steps"] == 20000
    assert now["done"].endswith("of 20024 steps")
    assert now["eta_s"] > 0 and now["samples_per_s"] > 0 and now["seconds_per_step"] > 0
    assert now["loss"] > 0 and "cell_text" not in now, "a loss that is not active"
    assert now["last_checkpoint"].startswith("stage1-step-") and 0 <= now["last_checkpoint_age_s"] < 60
    assert now["ranks"] == 1 and len(now["config_sha256"]) == 64
    assert "running" in langcell("info", run).stdout
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 75
    process.communicate()
    then = info(run)
    assert then["state"] == "stopped" and "eta_s" not in then
    assert "exit 75" in then["exits"][0] and "SIGTERM" in then["exits"][0]

    process = start(binary, corpus, run, "--resume", *LONG)
    while info(run)["state"] != "running":
        assert process.poll() is None
    process.kill()
    process.communicate()
    then = info(run)
    assert then["state"] == "stopped" and "exits" not in then, "SIGKILL leaves no word"


def test_a_second_start_is_not_the_end_of_the_first(binary, corpus, tmp_path, info):  # noqa: F811
    run = tmp_path / "run"
    process = start(binary, corpus, run, *LONG)
    second = subprocess.run(command(binary, corpus, run, "--resume", *LONG), capture_output=True, text=True)
    assert second.returncode == 5 and "another process is at work" in second.stderr
    assert info(run)["state"] == "running"
    for _ in range(50):
        info(run)
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert info(run)["state"] == "stopped" and "exits" not in info(run)


def test_a_finished_run_with_a_damaged_log_is_still_told_of_and_left_alone(binary, corpus, tmp_path, info):  # noqa: F811
    run = tmp_path / "run"
    subprocess.run(command(binary, corpus, run), check=True, stdout=subprocess.DEVNULL)
    lines = (run / "train.jsonl").read_text().splitlines(keepends=True)
    lines[3] = "\0\0\0\xff{]\n"
    (run / "train.jsonl").write_text("".join(lines) + lines[-1][:40], encoding="latin-1")
    (run / "manifest.json").write_text("{half")
    before = picture(run)
    os.chmod(run, 0o555)
    now = info(run)
    os.chmod(run, 0o755)
    assert now["state"] == "finished" and now["finished"]
    assert (now["stage"], now["step"], now["done"]) == (2, 24, "36 of 36 steps")
    assert now["last_checkpoint"] == "stage2-step-00000024"
    assert now["version"] is None
    assert picture(run) == before
    (run / "train.jsonl").write_text("")
    (run / "config.resolved.toml").write_text("[model")
    assert info(run)["state"] == "finished" and "step" not in info(run)


def test_a_failed_run_says_why(binary, corpus, tmp_path, info):  # noqa: F811
    run = tmp_path / "run"
    failed = subprocess.run(command(binary, corpus, run, "--set", "stage1.lr=1e30"), capture_output=True, text=True)
    assert failed.returncode == 7
    now = info(run)
    assert now["state"] == "failed"
    assert "exit 7" in now["exits"][0] and "gradient norm" in now["exits"][0]


def test_several_ranks_are_compared_in_the_log_and_in_info(binary, corpus, tmp_path, info):  # noqa: F811
    run = tmp_path / "run"
    train(2, binary, corpus, run, "--set", "stage1.steps=3", "--set", "stage2.steps=2")
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    for line in lines:
        ranks = line["ranks"]
        assert ranks["slowest"] in (0, 1)
        for key in ("data_s", "work_s", "comm_s", "sums_s", "tokens_per_s"):
            least, mean, most = ranks[key]
            assert 0 <= least <= mean <= most and most > 0
            assert abs(mean - (least + most) / 2) <= 1e-6 * most
        assert line["comm_s"] == ranks["comm_s"][1] and line["sums_s"] == ranks["sums_s"][1]
        assert line["sums_s"] < line["comm_s"], "gathers and small sums are no sums of gradients"
        assert abs(line["imbalance"] - (ranks["work_s"][2] / ranks["work_s"][1] - 1)) < 1e-9
        assert abs(2 * ranks["tokens_per_s"][1] / line["tokens_per_s"] - 1) < 1e-3
        assert ranks["work_s"][0] + ranks["comm_s"][0] <= line["step_s"] * 1.001, "rank 0's is a step of one of the two"
    now = info(run)
    assert now["ranks"] == 2 and now["imbalance"] == lines[-1]["imbalance"]
