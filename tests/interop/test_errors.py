"""Bad input gets its exit code and one clear line; nothing is left behind and nothing is changed."""

import shutil
import subprocess

import anndata
import numpy as np
import pytest
import scipy.sparse

QUICK = ["--preset", "tiny", "--steps", 5, "--set", "train.batch_size=8", "--quiet"]


@pytest.fixture(scope="module")
def made(langcell, tmp_path_factory):
    """A simulated file, its texts, and a model trained on it for a few steps."""
    folder = tmp_path_factory.mktemp("made")
    langcell("simulate", "--out", folder / "a.h5ad", "--texts", folder / "t.json", "--cells", 60, "--genes", 900, "--types", 3, "--seed", 2)
    langcell("train", folder / "a.h5ad", "--texts", folder / "t.json", "--label-key", "cell_type", "--out", folder / "model", *QUICK)
    return folder


def altered(source, target, change):
    data = anndata.read_h5ad(source)
    change(data)
    data.write_h5ad(target)


def log_normalised(data):
    x = data.X.astype(np.float32).toarray()
    data.X = scipy.sparse.csr_matrix(np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4))


def negative(data):
    data.X = data.X.astype(np.float32)
    data.X.data[3] = -1


def renamed(prefix):
    def change(data):
        data.var_names = [f"{prefix}{i:011d}" for i in range(data.n_vars)]
        for column in list(data.var.columns):
            del data.var[column]

    return change


def no_cells(source, target):
    anndata.read_h5ad(source)[:0].copy().write_h5ad(target)


DATA = {  # what is wrong → how it is made, exit code, a word of the message
    "missing file": (lambda s, t: None, 3, "no such file"),
    "truncated file": (lambda s, t: t.write_bytes(s.read_bytes()[:4000]), 3, "bad.h5ad"),
    "no HDF5": (lambda s, t: t.write_text("cell,gene\n1,2\n"), 3, "bad.h5ad"),
    "log-normalised": (lambda s, t: altered(s, t, log_normalised), 3, "bad.h5ad"),
    "negative": (lambda s, t: altered(s, t, negative), 3, "negative"),
    "unknown genes": (lambda s, t: altered(s, t, renamed("ENSG9")), 3, "bad.h5ad"),
    "mouse genes": (lambda s, t: altered(s, t, renamed("ENSMUSG")), 3, "mouse"),
    "gene names only": (lambda s, t: altered(s, t, renamed("MADEUP")), 3, "bad.h5ad"),
    "no cells": (no_cells, 3, "bad.h5ad"),
}


def fails(binary, *arguments, code, word, folder):
    before = sorted(str(p) for p in folder.rglob("*"))
    done = subprocess.run([str(binary), *map(str, arguments)], capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("langcell: error:")]
    assert done.returncode == code, f"exit {done.returncode}: {done.stderr}"
    assert len(lines) == 1 and word.lower() in lines[0].lower(), done.stderr
    assert done.stderr.rstrip().endswith(lines[0]), done.stderr
    assert done.stdout == ""
    assert sorted(str(p) for p in folder.rglob("*")) == before


@pytest.mark.parametrize("name", DATA)
def test_bad_counts(binary, made, tmp_path, name):
    make, code, word = DATA[name]
    make(made / "a.h5ad", tmp_path / "bad.h5ad")
    fails(
        binary,
        "annotate",
        tmp_path / "bad.h5ad",
        "--model",
        made / "model",
        "--texts",
        made / "t.json",
        "--out",
        tmp_path / "out.h5ad",
        code=code,
        word=word,
        folder=tmp_path,
    )
    fails(
        binary,
        "train",
        tmp_path / "bad.h5ad",
        "--texts",
        made / "t.json",
        "--label-key",
        "cell_type",
        "--genes",
        made / "model/genes.tsv",
        "--out",
        tmp_path / "model",
        *QUICK,
        code=code,
        word=word,
        folder=tmp_path,
    )


TEXTS = {
    "wrong JSON": ('{"a": "b",', "json"),
    "duplicate label": ('{"a": "one", "a": "two"}', "'a'"),
    "empty text": ('{"a": ""}', "empty"),
    "one text twice": ('{"a": "one", "b": "one"}', "text"),
    "a number": ('{"a": 3}', "'a'"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_bad_texts(binary, made, tmp_path, name):
    text, word = TEXTS[name]
    (tmp_path / "t.json").write_text(text)
    fails(
        binary,
        "annotate",
        made / "a.h5ad",
        "--model",
        made / "model",
        "--texts",
        tmp_path / "t.json",
        "--out",
        tmp_path / "out.h5ad",
        code=3,
        word=word,
        folder=tmp_path,
    )


def test_a_label_without_a_text_is_listed(binary, made, tmp_path):
    (tmp_path / "t.json").write_text('{"nothing of this file": "a text"}')
    fails(
        binary,
        "train",
        made / "a.h5ad",
        "--texts",
        tmp_path / "t.json",
        "--label-key",
        "cell_type",
        "--out",
        tmp_path / "model",
        *QUICK,
        code=3,
        word="have no text",
        folder=tmp_path,
    )
    fails(
        binary,
        "train",
        made / "a.h5ad",
        "--texts",
        made / "t.json",
        "--label-key",
        "no_such_column",
        "--out",
        tmp_path / "model",
        *QUICK,
        code=3,
        word="no_such_column",
        folder=tmp_path,
    )


def test_many_labels_without_a_text_are_counted(binary, made, tmp_path):
    altered(made / "a.h5ad", tmp_path / "b.h5ad", lambda data: data.obs.insert(0, "counted", [f"c{i}" for i in range(data.n_obs)]))
    common = ["train", tmp_path / "b.h5ad", "--texts", made / "t.json", "--label-key", "counted", "--out", tmp_path / "model", *QUICK]
    fails(binary, *common, code=3, word="… and 40 more; and no label has one: is this the column of the labels", folder=tmp_path)


def test_a_mistyped_option_names_the_nearest(binary, tmp_path):
    fails(binary, "annotate", "x.h5ad", "--modell", "m", code=2, word="--modell: no such option; did you mean --model?", folder=tmp_path)
    fails(binary, "evaluate", "x.h5ad", code=2, word="which command? There are: annotation", folder=tmp_path)


def test_what_is_wrong_with_a_training_is_said_before_a_cell_is_read(binary, made, tmp_path):
    common = ["train", made / "a.h5ad", "--texts", made / "t.json", "--label-key", "cell_type", "--out", tmp_path / "model"]
    for more, word in ((["--preset", "smal"], "model.preset: wanted one of tiny"), (["--set", "train.batchsize=8"], "train.batch_size")):
        done = subprocess.run([str(binary), *map(str, common), *more], capture_output=True, text=True)
        assert done.returncode == 2 and word in done.stderr and len(done.stderr.splitlines()) == 1 and not any(tmp_path.iterdir())


def test_symbols_need_a_vocabulary_that_has_them(binary, made, tmp_path):
    rows = [line.split("\t") for line in (made / "model/genes.tsv").read_text().splitlines()]
    for row in rows[1:]:
        row[2] = ""
    (tmp_path / "g.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    common = ["train", made / "a.h5ad", "--texts", made / "t.json", "--label-key", "cell_type", "--out", tmp_path / "model", "--gene-names"]
    fails(binary, *common, code=2, word="give --genes genes.tsv", folder=tmp_path)
    fails(binary, *common, "--genes", tmp_path / "g.tsv", code=2, word="has no gene names", folder=tmp_path)


def test_an_unknown_key_names_the_nearest(binary, made, tmp_path):
    fails(binary, "pretrain", "--run", tmp_path / "run", "--set", "train.batchsize=8", code=2, word="train.batch_size", folder=tmp_path)
    (tmp_path / "c.toml").write_text("[stage1]\nlearning_rate = 1\n")
    fails(
        binary, "pretrain", "--config", tmp_path / "c.toml", "--run", tmp_path / "run", code=2, word="stage1.learning_rate", folder=tmp_path
    )


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    "no folder": lambda m: shutil.rmtree(m),
    "weights cut": lambda m: cut(m / "cell_bert/model.safetensors"),
    "weights gone": lambda m: (m / "cell_proj.safetensors").unlink(),
    "config gone": lambda m: (m / "config.json").unlink(),
    "config broken": lambda m: (m / "config.json").write_text("{"),
    "genes gone": lambda m: (m / "genes.tsv").unlink(),
    "vocabulary short": lambda m: (m / "text_bert/vocab.txt").write_text("[PAD]\n"),
    "header broken": lambda m: (m / "ctm_head.safetensors").write_bytes(b"\xff" * 16 + (m / "ctm_head.safetensors").read_bytes()[16:]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_model(binary, made, tmp_path, name):
    shutil.copytree(made / "model", tmp_path / "model")
    DAMAGE[name](tmp_path / "model")
    fails(
        binary,
        "annotate",
        made / "a.h5ad",
        "--model",
        tmp_path / "model",
        "--texts",
        made / "t.json",
        "--out",
        tmp_path / "out.h5ad",
        code=4,
        word="model",
        folder=tmp_path,
    )


def test_outputs(binary, made, tmp_path):
    both = ["--model", made / "model", "--texts", made / "t.json", "--out"]
    source = tmp_path / "in.h5ad"
    shutil.copy(made / "a.h5ad", source)
    fails(binary, "annotate", source, *both, source, code=2, word="in.h5ad", folder=tmp_path)
    (tmp_path / "there.h5ad").write_text("mine")
    fails(binary, "annotate", source, *both, tmp_path / "there.h5ad", code=2, word="--overwrite", folder=tmp_path)
    assert (tmp_path / "there.h5ad").read_text() == "mine"
    fails(binary, "annotate", source, *both, tmp_path / "there.h5ad/below.h5ad", code=5, word="below.h5ad", folder=tmp_path)
    fails(binary, "annotate", source, *both, tmp_path / "out.csv", code=2, word="--out", folder=tmp_path)


def test_usage(binary, tmp_path):
    fails(binary, code=2, word="", folder=tmp_path)
    fails(binary, "anotate", code=2, word="", folder=tmp_path)
    fails(binary, "annotate", code=2, word="", folder=tmp_path)
    fails(binary, "split", "x.h5ad", "--fraction", "2", code=2, word="", folder=tmp_path)


def test_existing_results_are_kept_unless_asked(binary, langcell, made, tmp_path):
    both = ["--model", made / "model", "--texts", made / "t.json"]
    langcell("annotate", made / "a.h5ad", *both, "--out", tmp_path / "one.h5ad", "--quiet")
    fails(binary, "annotate", tmp_path / "one.h5ad", *both, "--out", tmp_path / "two.h5ad", code=2, word="--prefix", folder=tmp_path)
    langcell("annotate", tmp_path / "one.h5ad", *both, "--out", tmp_path / "two.h5ad", "--prefix", "again", "--quiet")
    data = anndata.read_h5ad(tmp_path / "two.h5ad")
    assert {"langcell_label", "again_label"} <= set(data.obs.columns) and {"X_langcell", "X_again"} <= set(data.obsm)


def test_overwrite_spares_what_is_not_ours(binary, made, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    common = ["train", made / "a.h5ad", "--texts", made / "t.json", "--label-key", "cell_type", "--overwrite", *QUICK]
    fails(binary, *common, "--out", tmp_path / "mine", code=2, word="mine", folder=tmp_path)
    fails(binary, *common, "--out", tmp_path / "model", "--run", tmp_path / "mine", code=2, word="mine", folder=tmp_path)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"


def test_overwrite_spares_inputs(binary, made, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    for name in ("a.h5ad", "t.json"):
        shutil.copy(made / name, work / name)
    shutil.copytree(made / "model.run", work, dirs_exist_ok=True)
    common = ["train", work / "a.h5ad", "--texts", work / "t.json", "--label-key", "cell_type", "--overwrite", *QUICK]
    fails(binary, *common, "--out", work, code=2, word="nothing this command wrote", folder=tmp_path)
    shutil.copytree(made / "model", work, dirs_exist_ok=True)
    fails(binary, *common, "--out", work, code=2, word="lies in this output folder", folder=tmp_path)
    fails(binary, "import", "--langcell", work, "--out", work, "--overwrite", code=2, word="inputs", folder=tmp_path)
    fails(binary, "export", "--model", made / "model", "--out", work, "--overwrite", code=2, word="nothing this command wrote", folder=tmp_path)
    fails(binary, "report", made / "model.run/run", "--out", work / "a.h5ad", code=2, word="exists already", folder=tmp_path)


def test_what_lies_beside_a_run_survives_overwrite(langcell, made, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(made / "model.run", work)
    (work / "notes.txt").write_text("mine")
    arguments = ["train", made / "a.h5ad", "--texts", made / "t.json", "--label-key", "cell_type", "--overwrite", *QUICK]
    langcell(*arguments, "--run", work, "--out", tmp_path / "model")
    assert (work / "notes.txt").read_text() == "mine" and (work / "corpus.h5").exists()


def test_figures_and_pages_are_not_written_over_inputs(binary, langcell, made, tmp_path):
    labelled = tmp_path / "l.h5ad"
    langcell("annotate", made / "a.h5ad", "--model", made / "model", "--texts", made / "t.json", "--out", labelled, "--quiet")
    before = labelled.read_bytes()
    truth = ["--truth", "cell_type"]
    fails(binary, "report", labelled, *truth, "--out", labelled, "--overwrite", code=2, word="inputs", folder=tmp_path)
    fails(binary, "evaluate", "annotation", labelled, *truth, "--metrics", labelled, "--overwrite", code=2, word="inputs", folder=tmp_path)
    fails(binary, "evaluate", "annotation", labelled, *truth, "--report", labelled, code=2, word="inputs", folder=tmp_path)
    assert labelled.read_bytes() == before
    for _ in range(2):
        langcell("evaluate", "annotation", labelled, *truth, "--metrics", tmp_path / "m.json", "--overwrite")
    fails(binary, "evaluate", "annotation", labelled, *truth, "--metrics", tmp_path / "m.json", code=2, word="--overwrite", folder=tmp_path)


def test_a_seed_that_no_configuration_can_hold_is_refused(binary, made, tmp_path):
    seed = str(2**63)
    fails(binary, "pretrain", "--run", tmp_path / "run", "--seed", seed, code=2, word="--seed", folder=tmp_path)


def test_a_resumed_run_refuses_other_data(binary, langcell, made, tmp_path):
    for seed in (1, 2):
        langcell(
            "simulate",
            "--out",
            tmp_path / f"{seed}.h5ad",
            "--texts",
            tmp_path / f"{seed}.json",
            "--cells",
            40,
            "--genes",
            900,
            "--types",
            3,
            "--seed",
            seed,
        )
        langcell(
            "tokenize",
            tmp_path / f"{seed}.h5ad",
            "--genes",
            made / "model/genes.tsv",
            "--out",
            tmp_path / f"{seed}.h5",
            "--allow-low-coverage",
        )
    run = [
        "pretrain",
        "--run",
        tmp_path / "run",
        "--quiet",
        "--set",
        'model.preset="tiny"',
        "--set",
        "train.batch_size=8",
        "--set",
        "stage1.steps=2",
        "--set",
        "stage2.steps=0",
        "--set",
        f'data.corpus=["{tmp_path}/c.h5"]',
    ]
    (tmp_path / "1.h5").rename(tmp_path / "c.h5")
    langcell(*run)
    (tmp_path / "run/model/MANIFEST.json").unlink()
    (tmp_path / "2.h5").rename(tmp_path / "c.h5")
    fails(binary, *run, "--resume", code=2, word="content hash", folder=tmp_path)
