"""Files made to lead a reader elsewhere: every one is refused by name, and what lies elsewhere is never in the output."""

import os
import pathlib
import signal
import subprocess
import threading
import time

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sparse

pytestmark = pytest.mark.filterwarnings("ignore")
CELLS, GENES = 30, 200
SECRET = 4242


@pytest.fixture
def folder(tmp_path):
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (CELLS, GENES)).astype(np.float32))
    obs = pd.DataFrame({"cell_type": pd.Categorical(["a", "b"] * (CELLS // 2))}, index=[f"c{i}" for i in range(CELLS)])
    var = pd.DataFrame(index=[f"ENSG{i:011}" for i in range(GENES)])
    anndata.AnnData(counts, obs, var).write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "secret.bin").write_bytes(np.full(GENES * CELLS, SECRET, np.float32).tobytes())
    with h5py.File(tmp_path / "secret.h5", "w") as f:
        f["x"] = np.full((CELLS, GENES), SECRET, np.float32)
    rows = "".join(f"{i + 2}\tENSG{i:011}\tG{i}\t1.0\n" for i in range(GENES))
    (tmp_path / "genes.tsv").write_text("token_id\tensembl_id\tgene_name\tmedian\n0\t<pad>\t\t\n1\t<mask>\t\t\n" + rows)
    return tmp_path


def external_link(f, folder):
    del f["X"]
    f["X"] = h5py.ExternalLink(str(folder / "secret.h5"), "/x")


def external_link_in_obs(f, folder):
    f["obs/donor"] = h5py.ExternalLink(str(folder / "secret.h5"), "/x")
    f["obs"].attrs["column-order"] = np.array(["cell_type", "donor"], dtype=h5py.string_dtype())


def external_storage(f, folder):
    del f["X"]
    x = f.create_dataset("X", (CELLS, GENES), np.float32, external=[(str(folder / "secret.bin"), 0, CELLS * GENES * 4)])
    x.attrs["encoding-type"], x.attrs["encoding-version"] = "array", "0.2.0"


def virtual_dataset(f, folder):
    del f["X"]
    layout = h5py.VirtualLayout((CELLS, GENES), np.float32)
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "x", (CELLS, GENES))
    x = f.create_virtual_dataset("X", layout)
    x.attrs["encoding-type"], x.attrs["encoding-version"] = "array", "0.2.0"


def soft_link_loop(f, _):
    del f["X"]
    f["X"] = h5py.SoftLink("/Y")
    f["Y"] = h5py.SoftLink("/X")


def group_in_itself(f, _):
    f["uns/again"] = f["uns"]


REFUSED = {
    external_link: "a link to another file",
    external_storage: "kept in another file",
    virtual_dataset: "a virtual dataset",
    soft_link_loop: "",
}


def tokenize(binary, folder, **more):
    command = [binary, "tokenize", folder / "a.h5ad", "--genes", folder / "genes.tsv", "--out", folder / "out.h5", "--allow-low-coverage"]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, **more)


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_leads_to_another_file_is_refused(binary, folder, make):
    with h5py.File(folder / "a.h5ad", "r+") as f:
        make(f, folder)
    run = tokenize(binary, folder)
    errors = [line for line in run.stderr.splitlines() if line.startswith("langcell: error:")]
    assert run.returncode == 3 and len(errors) == 1 and "a.h5ad" in errors[0] and REFUSED[make] in errors[0], run.stderr
    assert not (folder / "out.h5").exists()


@pytest.mark.parametrize("make", [external_link_in_obs, group_in_itself], ids=lambda make: make.__name__)
def test_what_is_not_needed_is_not_followed(binary, folder, make):
    with h5py.File(folder / "a.h5ad", "r+") as f:
        make(f, folder)
    run = tokenize(binary, folder)
    assert run.returncode == 0, run.stderr
    info = subprocess.run([binary, "info", folder / "a.h5ad"], capture_output=True, text=True, timeout=60)
    assert str(SECRET) not in info.stdout and info.returncode in (0, 3)


def test_an_annotated_copy_holds_nothing_of_another_file(langcell, binary, folder):
    (folder / "t.json").write_text('{"a": "a cell of kind a", "b": "a cell of kind b"}')
    few = ["--preset", "tiny", "--steps", 2, "--set", "train.batch_size=8", "--quiet", "--allow-low-coverage"]
    langcell("train", folder / "a.h5ad", "--texts", folder / "t.json", "--label-key", "cell_type", "--out", folder / "model", *few)
    with h5py.File(folder / "a.h5ad", "r+") as f:
        f["obsm/elsewhere"] = h5py.ExternalLink(str(folder / "secret.h5"), "/x")
    more = ["--texts", folder / "t.json", "--out", folder / "out.h5ad", "--allow-low-coverage"]
    langcell("annotate", folder / "a.h5ad", "--model", folder / "model", *more)
    assert np.float32(SECRET).tobytes() * 8 not in (folder / "out.h5ad").read_bytes()


def test_plugins_are_not_loaded(binary, folder):
    plugins = folder / "plugins"
    plugins.mkdir()
    source = folder / "evil.c"
    source.write_text('#include <stdio.h>\n__attribute__((constructor)) static void run(void) { fclose(fopen("ran", "w")); }\n')
    subprocess.run(["cc", "-shared", "-fPIC", "-o", plugins / "libevil.so", source], check=True)
    with h5py.File(folder / "a.h5ad", "r+") as f:
        data = f["X/data"][:]
        del f["X/data"]
        f["X"].create_dataset("data", data=data, chunks=(64,), compression="gzip")
    content = (folder / "a.h5ad").read_bytes()
    at = content.index(b"deflate\0")
    (folder / "a.h5ad").write_bytes(content[: at - 8] + (40000).to_bytes(2, "little") + content[at - 6 :])
    run = tokenize(binary, folder, env={**os.environ, "HDF5_PLUGIN_PATH": str(plugins)}, cwd=folder)
    assert not (folder / "ran").exists() and run.returncode == 3, run.stderr


def readers_of(process):
    """The processes that `process` started to read files."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
            if f"PPid:\t{process}\n" in text and "langcell-reader" in (status.parent / "cmdline").read_text():
                found.append(int(status.parent.name))
        except OSError:
            pass
    return found


def test_a_reader_that_is_killed_is_exit_3_with_the_files_name(binary, folder):
    killed = []

    def kill(process):
        for _ in range(400):
            for reader in readers_of(process.pid):
                os.kill(reader, signal.SIGKILL)
                killed.append(reader)
                return
            time.sleep(0.001)

    command = [binary, "tokenize", folder / "a.h5ad", "--genes", folder / "genes.tsv", "--out", folder / "out.h5", "--allow-low-coverage"]
    outcomes = set()
    for _ in range(20):
        (folder / "out.h5").unlink(missing_ok=True)
        process = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
        thread = threading.Thread(target=kill, args=(process,))
        thread.start()
        _, err = process.communicate(timeout=60)
        thread.join()
        outcomes.add(process.returncode)
        if process.returncode == 3:
            assert sum(line.startswith("langcell: error:") for line in err.splitlines()) == 1 and ("a.h5ad" in err or "out.h5" in err), err
        assert process.returncode in (0, 3), err
        assert not [p for p in folder.iterdir() if "partial" in p.name], "something half-written is left"
    assert killed and 3 in outcomes


def test_a_file_that_is_written_to_while_it_is_read_is_refused(binary, tmp_path):
    subprocess.run(
        [
            str(c)
            for c in (
                binary,
                "simulate",
                "--out",
                tmp_path / "a.h5ad",
                "--texts",
                tmp_path / "t.json",
                "--cells",
                6000,
                "--genes",
                3000,
                "--quiet",
            )
        ],
        check=True,
    )
    subprocess.run(
        [str(c) for c in (binary, "vocab", "--from", tmp_path / "a.h5ad", "--out", tmp_path / "genes.tsv", "--quiet")], check=True
    )
    command = [binary, "tokenize", tmp_path / "a.h5ad", "--genes", tmp_path / "genes.tsv", "--out", tmp_path / "out.h5"]
    process = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "counts:" in line:  # it has chosen the matrix and reads it a second time
            os.utime(tmp_path / "a.h5ad")
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 3 and "changed while it was read" in rest, rest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5ad", "genes.tsv", "t.json"]


def test_names_that_are_no_text_are_printed_in_one_line_of_utf8(binary, folder):
    with h5py.File(folder / "a.h5ad", "r+") as f:
        del f["X"]
        f["X"] = h5py.SoftLink("/nowhere")
        f["layers"].create_dataset(b"co\nunts\xbd", data=np.float32(np.random.default_rng(0).normal(size=(CELLS, GENES))))
        f["layers"][b"co\nunts\xbd"].attrs["encoding-type"] = "array"
    command = [
        binary,
        "tokenize",
        folder / "a.h5ad",
        "--genes",
        folder / "genes.tsv",
        "--out",
        folder / "out.h5",
        "--layer",
        b"co\nunts\xbd",
    ]
    run = subprocess.run([c if isinstance(c, bytes) else str(c) for c in command], capture_output=True, timeout=60)
    errors = [line for line in run.stderr.decode("utf-8").splitlines() if line.startswith("langcell: error:")]
    assert run.returncode == 3 and len(errors) == 1 and "co\\x0aunts\\xbd" in errors[0], run.stderr
