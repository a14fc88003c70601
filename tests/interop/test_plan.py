"""`langcell plan`: what it says beforehand, beside what the run then logs; what it refuses."""

import json
import subprocess

import pytest
from test_training import SETTINGS, command, corpus  # noqa: F401  (corpus: a fixture)

ASSUMED = ("--cells", 1_000_000, "--genes", 500, "--cell-tokens", 65, "--texts", 9, "--text-tokens", 17)


def sets(*keys):
    return [word for key in keys for word in ("--set", key)]


@pytest.fixture
def plan(langcell):
    return lambda *words: json.loads(langcell("plan", "--json", *words).stdout)


def test_a_plan_is_the_run_that_follows(binary, corpus, tmp_path, plan):  # noqa: F811
    run, more = tmp_path / "run", ("--set", "train.precision=fp32")
    planned = plan(*sets(*SETTINGS, f'data.corpus=["{corpus}"]'), *more, "--threads", 1, "--seconds", 0.2)
    subprocess.run(command(binary, corpus, run, *more), check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    assert [stage["steps"] for stage in planned["stages"]] == [12, 24]
    for stage in planned["stages"]:
        steps = [line for line in lines if line["stage"] == stage["stage"]]
        assert abs(stage["peak_bytes"] / max(line["peak_bytes"] for line in steps) - 1) < 0.1
        tokens = sum(line["tokens_per_s"] * line["step_s"] for line in steps) / len(steps)
        assert abs(stage["tokens_per_step"] / tokens - 1) < 0.05
        assert stage["step_s"] > 0 and stage["flops_per_step"] > 0 and stage["held_bytes"] >= stage["peak_bytes"]
    assert planned["seconds"] == pytest.approx(sum(s["step_s"] * s["steps"] for s in planned["stages"]))
    assert planned["rates"] == "measured now by a few small steps"


def test_gpus_that_are_not_here_and_corpora_that_are_not_there_yet_are_planned_for(plan, langcell):
    words = (*ASSUMED, *sets("model.preset=langcell", "train.batch_size=512", "stage1.epochs=1.0", "stage2.steps=7"))
    one, eight = plan(*words, "--gpu", "h200"), plan(*words, "--gpu", "h200", "--gpus", 8)
    assert [stage["steps"] for stage in one["stages"]] == [1953, 7]
    assert one["precision"] == "bf16" and one["device"] == "cuda" and "h200-2026-11-28.json" in one["rates"]
    assert 8 * eight["stages"][0]["tokens_per_step"] / 8 == one["stages"][0]["tokens_per_step"]
    assert eight["stages"][1]["peak_bytes"] < one["stages"][1]["peak_bytes"]
    assert one["stages"][0]["sent_bytes_per_step"] == 0
    sums = [stage["gradient_bytes_per_step"] for stage in eight["stages"]]
    assert sums[1] >= 2 * 7 / 8 * 4 * one["parameters"] and sums[0] < sums[1] / 3, "the text tower is frozen in stage 1"
    assert eight["days"] < one["days"] and eight["link"].startswith("assumed")
    assert plan(*words, "--gpu", "a100")["days"] > one["days"]
    assert "scaled by the data sheets" in plan(*words, "--gpu", "h100")["rates"]
    told = langcell("plan", *words, "--gpu", "h200", "--ranks", 8).stdout
    for word in ("peak memory of a rank", "sent by each rank in a step", "days on 8", "rates: measured", "between ranks: 370 GB/s"):
        assert word in told
    assert not plan(*words, *sets("train.batch_size=65536"), "--gpu", "h200")["fits"]


def test_recompute_accumulate_and_length_show_in_the_memory(plan):
    def peak(*keys):
        return plan(*ASSUMED, *sets("model.preset=small", "train.precision=fp32", *keys), "--memory-only")["peak_bytes"]

    whole = peak("train.batch_size=64")
    assert peak("train.batch_size=64", "train.recompute=true") < 0.6 * whole
    assert peak("train.batch_size=64", "train.accumulate=4") < 0.6 * whole
    assert peak("train.batch_size=64", "data.max_cell_tokens=33") < whole


def test_what_cannot_be_planned_is_refused_in_a_line(langcell, corpus):  # noqa: F811
    for words, said in [
        (("--gpu", "v100", *ASSUMED), "choose one of h200, h100, a100"),
        (sets('data.corpus="nowhere.h5"'), "nowhere.h5: no such corpus; add --cells"),
        ((*ASSUMED, *sets("train.batch_size=9"), "--ranks", 2), "wanted a multiple of ranks × train.accumulate = 2, got 9"),
        ((*ASSUMED, *sets("model.presett=tiny")), "did you mean model.preset?"),
        ((*ASSUMED, *sets("stage1.freeze='nothing.*'")), "matches no tensor"),
    ]:
        error = langcell("plan", *words, code=2).stderr
        assert said in error and len(error.splitlines()) == 1, error
