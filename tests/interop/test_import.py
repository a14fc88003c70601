"""Published models in and out, through the program: every wrong bundle gets exit 4 and one line, the right one comes back as it was."""

import json
import pickle
import shutil
import struct
import zipfile

import anndata
import numpy as np
import pytest

import make_bundle


@pytest.fixture
def bundle(shared, tmp_path):
    shutil.copytree(shared("golden/tiny/model"), tmp_path / "bundle")
    for path in [tmp_path / "bundle", *(tmp_path / "bundle").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "bundle"


def rewritten(path, change):
    """The members of a torch file, changed and written again."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def poisoned(bundle):
    class Call:
        def __reduce__(self):
            return print, ("a bomb went off",)

    rewritten(bundle / "ctm_head.bin", lambda m: m.update({"ctm_head/data.pkl": pickle.dumps({"weight": Call()}, protocol=2)}))


def not_a_number(bundle):
    def change(members):
        data = bytearray(members["ctm_head/data/0"])
        data[8:12] = struct.pack("<f", float("nan"))
        members["ctm_head/data/0"] = bytes(data)

    rewritten(bundle / "ctm_head.bin", change)


def deflated(bundle):
    """A zip bomb: a storage of a gigabyte of zeros in a megabyte."""
    with zipfile.ZipFile(bundle / "ctm_head.bin", "a", zipfile.ZIP_DEFLATED) as archive, archive.open(
        "ctm_head/data/9", "w", force_zip64=True
    ) as member:
        for _ in range(256):
            member.write(bytes(4 << 20))


def missing_tensor(bundle):
    rewritten(bundle / "ctm_head.bin", lambda m: m.update({"ctm_head/data.pkl": m["ctm_head/data.pkl"].replace(b"bias", b"bios")}))


def twice(bundle):
    rewritten(
        bundle / "ctm_head.bin",
        lambda m: m.update({"ctm_head/data.pkl": m["ctm_head/data.pkl"].replace(b"\x04\x00\x00\x00bias", b"\x06\x00\x00\x00weight")}),
    )


def doubles(bundle):
    rewritten(
        bundle / "ctm_head.bin", lambda m: m.update({"ctm_head/data.pkl": m["ctm_head/data.pkl"].replace(b"FloatStorage", b"LongStorage")})
    )


def config(tower, **values):
    def change(bundle):
        path = bundle / tower / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def cut(name, size):
    def change(bundle):
        (bundle / name).write_bytes((bundle / name).read_bytes()[:size])

    return change


WRONG = {  # what is wrong → how it is made, a word of the message
    "missing tensor": (missing_tensor, "missing 1 (ctm_head.bias)"),
    "wrong shape": (lambda b: shutil.copyfile(b / "cell_proj.bin", b / "ctm_head.bin"), "wanted (2, 96), got (32, 64)"),
    "wrong type": (doubles, "ctm_head.bin"),
    "truncated": (cut("cell_bert/pytorch_model.bin", 100_000), "cut off"),
    "empty": (cut("text_proj.bin", 0), "text_proj.bin"),
    "foreign global": (poisoned, "print"),
    "zip bomb": (deflated, "compressed"),
    "duplicate names": (twice, "twice"),
    "NaN weights": (not_a_number, "ctm_head.bin:weight: element 2 is nan"),
    "config against tensors": (config("cell_bert", num_hidden_layers=5), "num_hidden_layers"),
    "config with an absurd size": (config("text_bert", intermediate_size=65536), "intermediate_size"),
    "config that is no JSON": (cut("cell_bert/config.json", 40), "config.json"),
    "short vocabulary": (cut("vocab.txt", 200_000), "vocabulary is of another model or cut off"),
    "no text encoder": (lambda b: shutil.rmtree(b / "text_bert"), "text_bert"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_bundle_is_refused_in_one_line_and_leaves_nothing(langcell, shared, bundle, tmp_path, what):
    change, word = WRONG[what]
    change(bundle)
    done = langcell("import", "--langcell", bundle, "--genes", shared("data/geneformer_v1_genes.tsv"), "--out", tmp_path / "model", code=4)
    assert len(done.stderr.splitlines()) == 1 and word in done.stderr, done.stderr
    assert "a bomb went off" not in done.stdout + done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


def test_a_bundle_comes_back_as_it_was(langcell, shared, bundle, tmp_path):
    genes = shared("data/geneformer_v1_genes.tsv")
    said = json.loads(langcell("import", "--langcell", bundle, "--genes", genes, "--out", tmp_path / "one", "--json").stdout)
    assert {part["part"] for part in said["parts"]} == {"cell_bert", "text_bert", "cell_proj", "text_proj", "ctm_head"}
    assert all(ignored["reason"] for part in said["parts"] for ignored in part["ignored"])
    langcell("export", "--model", tmp_path / "one", "--out", tmp_path / "back")
    langcell("import", "--langcell", tmp_path / "back", "--out", tmp_path / "two")
    for file in (
        "cell_bert/model.safetensors",
        "text_bert/model.safetensors",
        "cell_proj.safetensors",
        "text_proj.safetensors",
        "ctm_head.safetensors",
        "genes.tsv",
        "text_bert/vocab.txt",
    ):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_geneformer_dictionaries_give_the_same_genes(langcell, shared, tmp_path):
    langcell(
        "vocab",
        "--geneformer-tokens",
        shared("data/token_dictionary.pkl"),
        "--geneformer-medians",
        shared("data/gene_median_dictionary.pkl"),
        "--out",
        tmp_path / "genes.tsv",
    )
    rows = [line.split("\t") for line in (tmp_path / "genes.tsv").read_text().splitlines()]
    wanted = [line.split("\t") for line in shared("data/geneformer_v1_genes.tsv").read_text().splitlines()]
    assert [(r[0], r[1]) for r in rows] == [(w[0], w[1]) for w in wanted]
    assert [float(r[3]) for r in rows[3:]] == [float(w[3]) for w in wanted[3:]]


def test_a_bundle_of_the_published_sizes_is_imported_and_labels_real_cells(langcell, shared, tmp_path):
    parameters = make_bundle.make(tmp_path / "bundle", shared("golden/tiny/model/vocab.txt"))
    assert parameters > 172e6
    langcell("import", "--langcell", tmp_path / "bundle", "--genes", shared("data/geneformer_v1_genes.tsv"), "--out", tmp_path / "model")
    shutil.rmtree(tmp_path / "bundle")
    anndata.read_h5ad(shared("data/pbmc3k.h5ad"))[:4].copy().write_h5ad(tmp_path / "cells.h5ad")
    langcell(
        "annotate",
        tmp_path / "cells.h5ad",
        "--model",
        tmp_path / "model",
        "--texts",
        shared("data/pbmc3k_texts.json"),
        "--out",
        tmp_path / "out.h5ad",
    )
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert out.obsm["X_langcell"].shape == (4, 256) and np.allclose(np.linalg.norm(out.obsm["X_langcell"], axis=1), 1, atol=1e-5)
    assert np.allclose(out.obsm["langcell_scores"].sum(axis=1), 1, atol=1e-5)
