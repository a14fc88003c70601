"""annotate and embed: killed anywhere, the same command goes on and ends in the same file; stopped, it says so; other work is not mixed in."""

import fcntl
import random
import shutil
import signal
import subprocess
import time

import anndata
import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(langcell, tmp_path_factory):
    """Cells, texts and a small model."""
    folder = tmp_path_factory.mktemp("continue")
    langcell("simulate", "--out", folder / "a.h5ad", "--texts", folder / "t.json", "--cells", 2600, "--genes", 900, "--types", 3, "--quiet")
    few = ["--preset", "tiny", "--steps", 4, "--set", "train.batch_size=8", "--quiet"]
    langcell("train", folder / "a.h5ad", "--texts", folder / "t.json", "--label-key", "cell_type", "--out", folder / "model", *few)
    return folder


def command(binary, made, out, *more):
    return [
        str(x) for x in (binary, "annotate", made / "a.h5ad", "--model", made / "model", "--texts", made / "t.json", "--out", out, *more)
    ]


def entries(folder):
    return sorted(p.name for p in folder.iterdir())


def assert_same(one, other):
    a, b = anndata.read_h5ad(one), anndata.read_h5ad(other)
    pd.testing.assert_frame_equal(a.obs, b.obs)
    np.testing.assert_array_equal(a.obsm["X_langcell"], b.obsm["X_langcell"])
    np.testing.assert_array_equal(a.obsm["langcell_scores"], b.obsm["langcell_scores"])
    assert a.uns["langcell"].keys() == b.uns["langcell"].keys()


@pytest.fixture(scope="module")
def undisturbed(binary, made):
    subprocess.run(command(binary, made, made / "whole.h5ad"), check=True, capture_output=True)
    return made / "whole.h5ad"


def wait_for(file, size, run):
    while run.poll() is None and (not file.exists() or file.stat().st_size < size):
        time.sleep(0.005)


def test_killed_at_any_time_it_goes_on_and_ends_the_same(binary, made, undisturbed, tmp_path):
    rng = random.Random(7)
    out, went_on = tmp_path / "out.h5ad", 0
    for cells in (0, 1, 512, 700, 1100, 1536, 2100, 2600):
        run = subprocess.Popen(command(binary, made, out), stderr=subprocess.PIPE, text=True)
        wait_for(tmp_path / "out.h5ad.partial" / "z.bin", 128 * cells, run)  # 32 floats a cell
        time.sleep(rng.uniform(0, 0.05))
        run.kill()
        went_on += "are there from before" in run.communicate()[1]
        if out.exists():
            break
    if entries(tmp_path) != ["out.h5ad"]:
        done = subprocess.run(command(binary, made, out), check=True, capture_output=True, text=True)
        went_on += "are there from before" in done.stderr
    assert went_on > 0
    assert_same(undisturbed, out)
    assert entries(tmp_path) == ["out.h5ad"]


def test_killed_between_output_and_cleaning_it_only_cleans(binary, made, undisturbed, tmp_path):
    out, work, kept = tmp_path / "out.h5ad", tmp_path / "out.h5ad.partial", tmp_path / "kept"
    run = subprocess.Popen(command(binary, made, out), stderr=subprocess.DEVNULL)
    wait_for(work / "z.bin", 128 * 2600, run)
    run.kill()
    run.wait()
    shutil.copytree(work, kept)
    subprocess.run(command(binary, made, out), check=True, capture_output=True)
    whole = out.read_bytes()
    shutil.copytree(kept, work)  # as after a kill behind the output's appearing
    subprocess.run(command(binary, made, out), check=True, capture_output=True)
    assert out.read_bytes() == whole and entries(tmp_path) == ["kept", "out.h5ad"]

    shutil.copytree(kept, work)  # an output of somebody else
    out.write_bytes(whole[:-1] + b"x")
    refused = subprocess.run(command(binary, made, out), capture_output=True, text=True)
    assert refused.returncode == 2 and "exists already" in refused.stderr
    assert out.read_bytes() == whole[:-1] + b"x" and entries(work) == entries(kept)
    (work / "z.bin").write_bytes(b"")  # work that is not done is not of an output that is there
    refused = subprocess.run(command(binary, made, out), capture_output=True, text=True)
    assert refused.returncode == 2 and "exists already" in refused.stderr


def test_stopped_it_says_that_the_same_command_goes_on(binary, made, undisturbed, tmp_path):
    out = tmp_path / "out.h5ad"
    run = subprocess.Popen(command(binary, made, out), stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "out.h5ad.partial" / "z.bin", 1, run)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 75 and "the same command goes on from there" in said
    assert entries(tmp_path) == ["out.h5ad.partial"]
    subprocess.run(command(binary, made, out), check=True, capture_output=True)
    assert_same(undisturbed, out)
    assert entries(tmp_path) == ["out.h5ad"]


def test_what_other_work_left_is_not_mixed_in(binary, made, undisturbed, tmp_path):
    out = tmp_path / "out.h5ad"
    run = subprocess.Popen(command(binary, made, out), stderr=subprocess.PIPE)
    wait_for(tmp_path / "out.h5ad.partial" / "z.bin", 1, run)
    run.kill()
    run.wait()
    done = subprocess.run(command(binary, made, out, "--alpha", "0.5"), capture_output=True, text=True)
    assert (
        done.returncode == 2
        and "another input, model, texts or options" in done.stderr
        and done.stderr.strip().splitlines()[-1].count("\n") == 0
    )
    subprocess.run(command(binary, made, out, "--alpha", "0.5", "--overwrite"), check=True, capture_output=True)
    assert anndata.read_h5ad(out).uns["langcell"]["alpha"] == pytest.approx(0.5)
    assert entries(tmp_path) == ["out.h5ad"]


def test_two_processes_do_not_write_one_output(binary, made, tmp_path):
    out = tmp_path / "out.h5ad"
    (tmp_path / "out.h5ad.partial").mkdir()
    with open(tmp_path / "out.h5ad.partial" / "about", "w") as about:
        fcntl.flock(about, fcntl.LOCK_EX)
        done = subprocess.run(command(binary, made, out), capture_output=True, text=True)
    assert done.returncode == 2 and "another process is writing this output" in done.stderr
    assert not out.exists()


def test_a_dry_run_writes_nothing(binary, made, tmp_path):
    done = subprocess.run(command(binary, made, tmp_path / "out.h5ad", "--dry-run"), capture_output=True, text=True)
    assert done.returncode == 0 and "2600 cells x 3 texts: about" in done.stderr
    assert entries(tmp_path) == []


def test_embeddings_go_on_too(binary, made, tmp_path):
    out = tmp_path / "e.npz"
    base = [str(x) for x in (binary, "embed", made / "a.h5ad", "--model", made / "model", "--cls", "--out")]
    run = subprocess.Popen([*base, str(out)], stderr=subprocess.PIPE)
    wait_for(tmp_path / "e.npz.partial" / "cls.bin", 1, run)
    run.kill()
    run.wait()
    done = subprocess.run([*base, str(out)], check=True, capture_output=True, text=True)
    assert "are there from before" in done.stderr
    subprocess.run([*base, str(tmp_path / "whole.npz")], check=True, capture_output=True)
    one, other = np.load(out), np.load(tmp_path / "whole.npz")
    for name in ("X", "X_cls", "obs_names"):
        np.testing.assert_array_equal(one[name], other[name])
