"""docs/wrong_inputs.md is this table, run: for every wrong input the exit code, the one line that is printed, and nothing left behind.

WRITE_DOCS=1 pytest tests/interop/test_wrong_inputs.py     writes the page anew from what the program says
"""

import os
import re
import resource
import shutil
import subprocess
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

PAGE = Path(__file__).resolve().parents[2] / "docs/wrong_inputs.md"
QUICK = ["--preset", "tiny", "--steps", 4, "--set", "train.batch_size=8", "--quiet"]
OBO = """format-version: 1.2

[Term]
id: CL:0000000
name: cell

[Term]
id: CL:0000001
name: old cell
is_obsolete: true
"""


# ---- what the wrong inputs are made of; `m` is the folder with sound ones, `t` the folder of this case


def counts(change):
    def make(m, t):
        data = anndata.read_h5ad(m / "a.h5ad")
        done = change(data)
        (data if done is None else done).write_h5ad(t / "bad.h5ad")

    return make


def values(change):
    def of(data):
        x = data.X.astype(np.float32).toarray()
        data.X = scipy.sparse.csr_matrix(change(x).astype(np.float32))

    return counts(of)


def one_value(value):
    def of(data):
        data.X = data.X.astype(np.float32)
        data.X.data[3] = value

    return counts(of)


def renamed(prefix):
    def of(data):
        data.var = pd.DataFrame(index=[f"{prefix}{i:011d}" for i in range(data.n_vars)])

    return counts(of)


def inside(change):
    """A sound file whose HDF5 is changed by hand."""

    def make(m, t):
        shutil.copy(m / "a.h5ad", t / "bad.h5ad")
        with h5py.File(t / "bad.h5ad", "r+") as file:
            change(file)

    return make


def set_value(path, at, value):
    def change(file):
        data = file[path][:]
        data[at] = value
        file[path][...] = data

    return inside(change)


def written(name, content):
    def make(_, t):
        (t / name).parent.mkdir(parents=True, exist_ok=True)
        (t / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def nothing(m, t):
    pass


def linked_elsewhere(file):
    del file["X"]
    file["X"] = h5py.ExternalLink("/etc/passwd", "X")


def mtx(header="%%MatrixMarket matrix coordinate integer general", sizes="3 2 2", entries="1 1 5\n3 2 1\n", features=3, barcodes=2):
    def make(_, t):
        folder = t / "mtx"
        folder.mkdir()
        (folder / "matrix.mtx").write_text(f"{header}\n{sizes}\n{entries}")
        if features:
            (folder / "features.tsv").write_text("".join(f"ENSG{i:011d}\tG{i}\tGene Expression\n" for i in range(features)))
        (folder / "barcodes.tsv").write_text("".join(f"AAAC{i}\n" for i in range(barcodes)))

    return make


def model(change):
    def make(m, t):
        shutil.copytree(m / "model", t / "model")
        change(t / "model")

    return make


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def damaged(path):
    path.write_bytes(b"\xff" * 16 + path.read_bytes()[16:])


def genes(change):
    def make(m, t):
        rows = [line.split("\t") for line in (m / "model/genes.tsv").read_text().splitlines()]
        change(rows)
        (t / "genes.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))

    return make


def occupied(m, t):
    (t / "run").mkdir()
    (t / "run/thesis.txt").write_text("years")


def output_there(m, t):
    (t / "out.h5ad").write_text("mine")


# ---- commands: M is the sound folder, T that of the case
ANNOTATE = "annotate T/bad.h5ad --model M/model --texts M/t.json --out T/out.h5ad"
TEXTS = "annotate M/a.h5ad --model M/model --texts T/t.json --out T/out.h5ad"
MODEL = "annotate M/a.h5ad --model T/model --texts M/t.json --out T/out.h5ad"
TOKENIZE = "tokenize T/bad.h5ad --genes M/model/genes.tsv --out T/c.h5"
MTX = "tokenize T/mtx --genes M/model/genes.tsv --out T/c.h5"
GENES = "tokenize M/a.h5ad --genes T/genes.tsv --out T/c.h5"
OBO_TEXTS = "texts --obo T/cl.obo --out T/t.json --terms "
PRETRAIN = "pretrain --run T/run --quiet --set data.corpus=['M/c.h5'] --set model.preset='tiny' --set train.batch_size=8 --set stage1.steps=2 --set stage2.steps=0 "

CASES = {
    "Counts": [
        ("a file that is not there", nothing, ANNOTATE, 3),
        ("an empty file", written("bad.h5ad", b""), ANNOTATE, 3),
        ("a file cut off", lambda m, t: (t / "bad.h5ad").write_bytes((m / "a.h5ad").read_bytes()[:4000]), ANNOTATE, 3),
        ("a CSV called .h5ad", written("bad.h5ad", "cell,gene\n1,2\n"), ANNOTATE, 3),
        ("log-normalised values", values(lambda x: np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4)), ANNOTATE, 3),
        ("values scaled to 10,000 a cell", values(lambda x: x / x.sum(axis=1, keepdims=True) * 1e4), ANNOTATE, 3),
        ("z-scores", values(lambda x: (x - x.mean(axis=0)) / (x.std(axis=0) + 1)), ANNOTATE, 3),
        ("a negative value", one_value(-1), ANNOTATE, 3),
        ("NaN", one_value(np.nan), ANNOTATE, 3),
        ("an infinite value", one_value(np.inf), ANNOTATE, 3),
        ("mouse genes", renamed("ENSMUSG"), ANNOTATE, 3),
        ("gene names of no known kind", renamed("MADEUP"), ANNOTATE, 3),
        ("Ensembl ids the model does not know", renamed("ENSG9"), ANNOTATE, 3),
        ("no cells", counts(lambda d: d[:0].copy()), ANNOTATE, 3),
        ("no genes", counts(lambda d: d[:, :0].copy()), ANNOTATE, 3),
        ("no X", inside(lambda f: f.__delitem__("X")), ANNOTATE, 3),
        ("no obs", inside(lambda f: f.__delitem__("obs")), ANNOTATE, 3),
        ("column numbers outside the matrix", set_value("X/indices", 5, 10**6), ANNOTATE, 3),
        ("row starts that fall", set_value("X/indptr", 2, 10**6), ANNOTATE, 3),
        ("a layer that is not there", nothing, "annotate M/a.h5ad --layer spliced --model M/model --texts M/t.json --out T/out.h5ad", 3),
        ("X is a link to another file", inside(linked_elsewhere), ANNOTATE, 3),
        ("a folder without matrix.mtx", lambda m, t: (t / "mtx").mkdir(), MTX, 3),
        ("an MTX of another kind", mtx(header="%%MatrixMarket matrix array real general"), MTX, 3),
        ("an MTX with fewer entries than it says", mtx(sizes="3 2 9"), MTX, 3),
        ("an MTX with a row outside", mtx(entries="1 1 5\n7 2 1\n"), MTX, 3),
        ("an MTX with words for numbers", mtx(entries="1 1 5\n3 two 1\n"), MTX, 3),
        ("barcodes for other cells", mtx(barcodes=5), MTX, 3),
        ("features for other genes", mtx(features=7), MTX, 3),
        ("no features", mtx(features=0), MTX, 3),
        ("a 10x .h5 without its matrix", lambda m, t: h5py.File(t / "bad.h5", "w").close(), TOKENIZE.replace("bad.h5ad", "bad.h5"), 3),
    ],
    "Texts": [
        ("a file that is not there", nothing, TEXTS, 3),
        ("broken JSON", written("t.json", '{"a": "b",'), TEXTS, 3),
        ("a list instead of labels", written("t.json", '["a", "b"]'), TEXTS, 3),
        ("no label at all", written("t.json", "{}"), TEXTS, 3),
        ("a label twice", written("t.json", '{"a": "one", "a": "two"}'), TEXTS, 3),
        ("an empty text", written("t.json", '{"a": ""}'), TEXTS, 3),
        ("one text under two labels", written("t.json", '{"a": "one", "b": "one"}'), TEXTS, 3),
        ("a number for a text", written("t.json", '{"a": 3}'), TEXTS, 3),
        ("a key nobody knows", written("t.json", '{"a": {"texts": "one"}}'), TEXTS, 3),
        ("bytes that are no UTF-8", written("t.json", b'{"a": "\xff\xfe"}'), TEXTS, 3),
        (
            "a label of the cells without a text",
            written("t.json", '{"nothing of this file": "a text"}'),
            "tokenize M/a.h5ad --genes M/model/genes.tsv --texts T/t.json --label-key cell_type --out T/c.h5",
            3,
        ),
        (
            "a label column that is not there",
            nothing,
            "tokenize M/a.h5ad --genes M/model/genes.tsv --texts M/t.json --label-key celltype --out T/c.h5",
            3,
        ),
    ],
    "Ontologies and genes": [
        ("an ontology that is not there", nothing, OBO_TEXTS + "CL:0000000", 3),
        ("an ontology without terms", written("cl.obo", "format-version: 1.2\n"), OBO_TEXTS + "CL:0000000", 3),
        ("a term it does not have", written("cl.obo", OBO), OBO_TEXTS + "CL:9999999", 3),
        ("an obsolete term nothing replaces", written("cl.obo", OBO), OBO_TEXTS + "CL:0000001", 3),
        ("genes.tsv is not there", nothing, GENES, 3),
        ("genes.tsv without its heading", written("genes.tsv", "ENSG00000000001\tA\t1.0\n"), GENES, 3),
        ("a gene twice", genes(lambda rows: rows[5].__setitem__(1, rows[6][1])), GENES, 3),
        ("a median that is not above 0", genes(lambda rows: rows[5].__setitem__(3, "-1")), GENES, 3),
        ("a gene map of one column", written("map.tsv", "A\nB\n"), "tokenize M/a.h5ad --genes M/model/genes.tsv --gene-map T/map.tsv --out T/c.h5", 3),
    ],
    "Models and corpora": [
        ("a model that is not there", nothing, MODEL, 4),
        ("config.json is gone", model(lambda p: (p / "config.json").unlink()), MODEL, 4),
        ("config.json is broken", model(lambda p: (p / "config.json").write_text("{")), MODEL, 4),
        ("weights cut off", model(lambda p: cut(p / "cell_bert/model.safetensors")), MODEL, 4),
        ("weights whose header is damaged", model(lambda p: damaged(p / "ctm_head.safetensors")), MODEL, 4),
        ("weights that are gone", model(lambda p: (p / "cell_proj.safetensors").unlink()), MODEL, 4),
        ("no text encoder", model(lambda p: shutil.rmtree(p / "text_bert")), MODEL, 4),
        ("a corpus that is not there", nothing, PRETRAIN.replace("M/c.h5", "T/c.h5"), 3),
        ("an .h5ad for a corpus", nothing, PRETRAIN.replace("M/c.h5", "M/a.h5ad"), 3),
        (
            "a bundle whose torch file is damaged",
            written("bundle/cell_bert/pytorch_model.bin", b"PK\x03\x04 and no more"),
            "import --langcell T/bundle --genes M/model/genes.tsv --text-vocab M/model/text_bert/vocab.txt --out T/model",
            4,
        ),
    ],
    "Configuration": [
        ("a configuration that is not there", nothing, "pretrain --config T/run.toml --run T/run", 2),
        ("broken TOML", written("run.toml", "[stage1\n"), "pretrain --config T/run.toml --run T/run", 2),
        ("an unknown key", nothing, PRETRAIN + "--set train.batchsize=8", 2),
        ("a word for a number", nothing, PRETRAIN + "--set stage1.lr='fast'", 2),
        ("a number out of range", nothing, PRETRAIN + "--set stage1.mask_rate=1.5", 2),
        ("a preset nobody knows", nothing, PRETRAIN + "--set model.preset='huge'", 2),
        ("both stages skipped", nothing, PRETRAIN + "--set stage1.steps=0", 2),
        ("more samples in a batch than cells", nothing, PRETRAIN + "--set train.batch_size=4096", 2),
        ("micro-batches that do not divide the batch", nothing, PRETRAIN + "--set train.accumulate=3", 2),
        ("a freeze pattern that matches nothing", nothing, PRETRAIN + "--set stage1.freeze=['cel_bert.*']", 2),
        ("a holdout by a column the corpus lacks", nothing, PRETRAIN + "--set data.holdout=0.2 --set data.holdout_by='donor'", 3),
        ("a device that does not exist", nothing, PRETRAIN + "--device tpu", 2),
    ],
    "Disk and command line": [
        ("an output that exists", output_there, "annotate M/a.h5ad --model M/model --texts M/t.json --out T/out.h5ad", 2),
        ("the input for an output", nothing, "annotate M/a.h5ad --model M/model --texts M/t.json --out M/a.h5ad", 2),
        ("an output in a folder that is not there", nothing, "annotate M/a.h5ad --model M/model --texts M/t.json --out T/none/out.h5ad", 5),
        ("an output of no known kind", nothing, "annotate M/a.h5ad --model M/model --texts M/t.json --out T/out.csv", 2),
        ("a run folder with something in it", occupied, PRETRAIN, 2),
        ("a disk that takes no more", nothing, "annotate M/a.h5ad --model M/model --texts M/t.json --out T/out.h5ad", 5),
        ("a command nobody knows", nothing, "anotate M/a.h5ad", 2),
        ("a flag nobody knows", nothing, "embed M/a.h5ad --model M/model --out T/out.h5ad --modell x", 2),
        ("a required flag that is missing", nothing, "annotate M/a.h5ad --model M/model --texts M/t.json", 2),
        ("a share above 1", nothing, "split M/a.h5ad --key cell_type --fraction 2 --train T/a.h5ad --test T/b.h5ad", 2),
    ],
}
ALL = [(chapter, *case) for chapter, cases in CASES.items() for case in cases]


@pytest.fixture(scope="module")
def made(langcell, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    langcell("simulate", "--out", folder / "a.h5ad", "--texts", folder / "t.json", "--cells", 60, "--genes", 900, "--types", 3, "--seed", 2)
    langcell("train", folder / "a.h5ad", "--texts", folder / "t.json", "--label-key", "cell_type", "--out", folder / "model", *QUICK)
    langcell("tokenize", folder / "a.h5ad", "--genes", folder / "model/genes.tsv", "--out", folder / "c.h5", "--quiet")
    return folder


def little_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def printed(binary, made, folder, what, make, command):
    """(exit code, the error's line), with the names of the folders as in the table."""
    make(made, folder)
    before = sorted(str(p) for top in (folder, made) for p in top.rglob("*"))
    words = [re.sub(r"\bM/", f"{made}/", re.sub(r"(?<![A-Za-z])T(?=/|$)", str(folder), w)) for w in command.split()]
    limit = little_disk if "disk" in what else None
    done = subprocess.run([str(binary), *words], capture_output=True, text=True, timeout=120, preexec_fn=limit)
    lines = [line for line in done.stderr.splitlines() if line.startswith("langcell: error:")]
    assert len(lines) == 1 and done.stderr.rstrip().endswith(lines[0]), done.stderr
    assert done.stdout == ""
    left = sorted(str(p) for top in (folder, made) for p in top.rglob("*") if not (limit and "out.h5ad.partial" in p.parts))
    assert left == before  # what is done of a long work is kept: the same command goes on from there
    line = lines[0].removeprefix("langcell: error: ").replace(f"{folder}/", "").replace(f"{made}/", "").replace(str(folder), ".")
    return done.returncode, re.sub(r"\.partial-\d+", ".partial-N", line)


def test_there_are_sixty_and_no_two_are_called_alike():
    assert len(ALL) >= 60
    assert len({case[:2] for case in ALL}) == len(ALL)


@pytest.fixture(scope="module")
def page():
    """Collects what is said, and writes the page at the end when asked to."""
    said = {}
    yield said
    if os.environ.get("WRITE_DOCS"):
        text = "# Wrong inputs\n\nWhat the program says, and its exit code, for each of these; nothing is left behind. `tests/interop/test_wrong_inputs.py`\n"
        text += "runs every row. Exit codes: 2 usage or configuration, 3 data or texts, 4 model or checkpoint, 5 disk, memory or device.\n"
        for chapter, cases in CASES.items():
            text += f"\n## {chapter}\n\n| what is wrong | exit | the line |\n| --- | --- | --- |\n"
            for what, *_ in cases:
                code, line = said[chapter, what]
                text += f"| {what} | {code} | {line.replace('|', chr(92) + '|')} |\n"
        PAGE.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("chapter", "what", "make", "command", "code"), ALL, ids=[f"{c[0]}: {c[1]}" for c in ALL])
def test_wrong_input(binary, made, page, tmp_path, chapter, what, make, command, code):
    found, line = page[chapter, what] = printed(binary, made, tmp_path, what, make, command)
    assert found == code, line
    if not os.environ.get("WRITE_DOCS"):
        row = f"| {what} | {code} | {line.replace('|', chr(92) + '|')} |"
        assert row in PAGE.read_text(encoding="utf-8").splitlines(), f"docs/wrong_inputs.md lacks: {row}"
