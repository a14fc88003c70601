"""Texts from an ontology: by id, name, exact synonym; obsolete terms, ambiguous labels, damaged files; and a training run on them."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest

OBO = """format-version: 1.2
ontology: cl

[Term]
id: CL:0000000
name: cell
def: "A material entity of anatomical origin." [CARO:mah]

[Term]
id: CL:0000236
name: B cell
def: "A lymphocyte of B lineage that is \\"able\\" to make antibodies." [GO_REF:0000031, ISBN:0781735149]
synonym: "B lymphocyte" EXACT []
synonym: "B-cell" EXACT []
synonym: "bursa cell" RELATED []
is_a: CL:0000000 {source="x"} ! cell

[Term]
id: CL:0000623
name: natural killer cell
synonym: "NK cell" EXACT []
is_a: CL:0000000 ! cell

[Term]
id: CL:0000001
name: old B cell
is_obsolete: true
replaced_by: CL:0000236

[Term]
id: CL:0000002
name: gone cell
is_obsolete: true

[Term]
id: CL:0000576
name: monocyte
def: "Myeloid mononuclear recirculating leukocyte." []
synonym: "shared name" EXACT []

[Term]
id: CL:0000084
name: T cell
def: "A type of lymphocyte." []
synonym: "shared name" EXACT []

[Typedef]
id: part_of
name: part of
"""


@pytest.fixture
def obo(tmp_path):
    path = tmp_path / "cl.obo"
    path.write_text(OBO)
    return path


def labelled(path, labels):
    rng = np.random.default_rng(3)
    obs = pd.DataFrame({"kind": pd.Categorical(labels)}, index=[f"c{i}" for i in range(len(labels))])
    counts = rng.negative_binomial(0.6, 0.3, (len(labels), 300)).astype(np.float32)
    anndata.AnnData(counts, obs, pd.DataFrame(index=[f"ENSG{i:011}" for i in range(300)])).write_h5ad(path)
    return path


def test_terms_by_id_name_and_exact_synonym(langcell, obo, tmp_path):
    out = tmp_path / "t.json"
    terms = ["CL:0000236", "NK cell", "Monocyte", "CL:0000001"]
    said = langcell("texts", "--obo", obo, *[x for t in terms for x in ("--terms", t)], "--out", out).stderr
    assert json.loads(out.read_text()) == {
        "B cell": {"text": 'cell type: B cell. A lymphocyte of B lineage that is "able" to make antibodies.', "ontology_id": "CL:0000236"},
        "natural killer cell": {"text": "cell type: natural killer cell.", "ontology_id": "CL:0000623"},
        "monocyte": {"text": "cell type: monocyte. Myeloid mononuclear recirculating leukocyte.", "ontology_id": "CL:0000576"},
    }
    assert "have no definition" in said and "natural killer cell" in said


def test_labels_of_a_file_keep_their_names(langcell, obo, tmp_path):
    cells = labelled(tmp_path / "a.h5ad", ["B-cell"] * 3 + ["natural killer cell"] * 2)
    said = langcell("texts", "--obo", obo, "--from", cells, "--key", "kind", "--out", tmp_path / "t.json").stderr
    texts = json.loads((tmp_path / "t.json").read_text())
    assert list(texts) == ["B-cell", "natural killer cell"] and texts["B-cell"]["ontology_id"] == "CL:0000236"
    assert "'B-cell' is B cell (CL:0000236)" in said
    langcell(
        "tokenize",
        cells,
        "--genes",
        vocabulary(langcell, cells, tmp_path),
        "--texts",
        tmp_path / "t.json",
        "--label-key",
        "kind",
        "--out",
        tmp_path / "c.h5",
    )


def vocabulary(langcell, cells, folder):
    langcell("vocab", "--from", cells, "--out", folder / "genes.tsv")
    return folder / "genes.tsv"


@pytest.mark.parametrize("label", ["bursa cell", "gone cell", "shared name", "neutrophil"])
def test_what_no_term_or_several_terms_mean_is_listed(langcell, obo, tmp_path, label):
    cells = labelled(tmp_path / "a.h5ad", ["B cell"] * 3 + [label] * 2)
    common = ["texts", "--obo", obo, "--from", cells, "--key", "kind", "--out", tmp_path / "t.json"]
    said = langcell(*common, code=3).stderr
    assert f"'{label}' (2 cells)" in said and said.count("\n") == 1 and not (tmp_path / "t.json").exists()
    langcell(*common, "--allow-missing")
    assert list(json.loads((tmp_path / "t.json").read_text())) == ["B cell"]


def test_a_map_names_the_term(langcell, obo, tmp_path):
    cells = labelled(tmp_path / "a.h5ad", ["Mono", "B cell"])
    (tmp_path / "m.tsv").write_text("Mono\tCL:0000576\n")
    langcell("texts", "--obo", obo, "--from", cells, "--key", "kind", "--map", tmp_path / "m.tsv", "--out", tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["Mono"]["ontology_id"] == "CL:0000576"


def test_two_labels_of_one_term_are_refused(langcell, obo, tmp_path):
    cells = labelled(tmp_path / "a.h5ad", ["B cell", "B lymphocyte"])
    assert (
        "are both B cell (CL:0000236)"
        in langcell("texts", "--obo", obo, "--from", cells, "--key", "kind", "--out", tmp_path / "t.json", code=3).stderr
    )


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("", "no [Term]"),
        ("hello world\n", ":1: 'hello world' is no line of an OBO file"),
        ("[Term]\nname: cell\n[Term]\n", ":3: the [Term] before has no id"),
        ("[Term]\nid: a\n[Term]\nid: a\n", "the term 'a' occurs twice"),
    ],
)
def test_files_that_are_no_ontology(langcell, tmp_path, text, wanted):
    (tmp_path / "x.obo").write_text(text)
    said = langcell("texts", "--obo", tmp_path / "x.obo", "--terms", "cell", "--out", tmp_path / "t.json", code=3).stderr
    assert wanted in said and said.count("\n") == 1


def test_what_is_asked_for_twice_or_not_at_all(langcell, obo, tmp_path):
    assert "either --terms or --from" in langcell("texts", "--obo", obo, "--out", tmp_path / "t.json", code=2).stderr
    cells = labelled(tmp_path / "a.h5ad", ["B cell"])
    assert "--from needs --key" in langcell("texts", "--obo", obo, "--from", cells, "--out", tmp_path / "t.json", code=2).stderr
    assert (
        "no column 'type'" in langcell("texts", "--obo", obo, "--from", cells, "--key", "type", "--out", tmp_path / "t.json", code=3).stderr
    )
