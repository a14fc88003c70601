"""Texts from columns of obs: a file in the form of CELLxGENE gives texts, groups, types and a funnel that h5py reads."""

import json

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

CL = """format-version: 1.2

[Term]
id: CL:0000542
name: lymphocyte

[Term]
id: CL:0000236
name: B cell
def: "A lymphocyte of B lineage." []
is_a: CL:0000542 ! lymphocyte
"""
MONDO = """format-version: 1.2

[Term]
id: MONDO:0005148
name: type 2 diabetes mellitus
def: "A type of diabetes." []

[Term]
id: MONDO:0005044
name: hypertension
"""
B = "cell type: B cell. A lymphocyte of B lineage.;"
BOTH = "disease: hypertension.; disease: type 2 diabetes mellitus. A type of diabetes.;"


def cellxgene(path, organism="NCBITaxon:9606", **changed):
    rng = np.random.default_rng(3)
    counts = rng.negative_binomial(0.9, 0.3, (7, 400)).astype(np.float32)
    counts[5] = counts[0]
    columns = {
        "cell_type": ["B cell", "B cell", "lymphocyte", "unknown", "odd cell", "B cell", "B cell"],
        "cell_type_ontology_term_id": ["CL:0000236", "CL:0000236", "CL:0000542", "unknown", "CL:9999999", "CL:0000236", "CL:0000236"],
        "tissue": ["blood"] * 3 + ["na"] + ["blood"] * 3,
        "disease": ["normal", "hypertension || type 2 diabetes mellitus", "normal", "unknown", "normal", "normal", "normal"],
        "disease_ontology_term_id": ["PATO:0000461", "MONDO:0005044 || MONDO:0005148", "PATO:0000461", "unknown"] + ["PATO:0000461"] * 3,
    }
    obs = pd.DataFrame({name: pd.Categorical(values) for name, values in columns.items()}, index=[f"c{i}" for i in range(7)])
    obs["is_primary_data"] = [True] * 6 + [False]
    data = anndata.AnnData(np.log1p(counts), obs.assign(**changed), pd.DataFrame(index=[f"ENSG{i:011}" for i in range(400)]))
    data.raw = anndata.AnnData(counts, data.obs, data.var)
    data.uns["organism_ontology_term_id"] = organism
    data.write_h5ad(path)
    return path


@pytest.fixture
def made(langcell, tmp_path):
    cells = cellxgene(tmp_path / "cells.h5ad")
    for name, text in (("cl", CL), ("mondo", MONDO)):
        (tmp_path / f"{name}.obo").write_text(text)
    langcell("vocab", "--from", cells, "--out", tmp_path / "genes.tsv")
    return ["--genes", tmp_path / "genes.tsv", "--obo", tmp_path / "cl.obo", "--obo", tmp_path / "mondo.obo", "--out", tmp_path / "c.h5"]


def test_a_cellxgene_file_gives_texts_groups_types_and_a_funnel(langcell, made, tmp_path):
    done = langcell("tokenize", tmp_path / "cells.h5ad", "--cellxgene", *made, "--json")
    funnel = json.loads(done.stdout)["funnel"]
    assert (funnel["read"], funnel["kept"]) == (7, 5) and funnel["dropped"] == {"not primary data": 1, "duplicate": 1}
    assert funnel["noted"]["without a text"] == 1 and "'cell_type: odd cell' (CL:9999999)" in done.stderr
    with h5py.File(tmp_path / "c.h5") as file:
        texts, text_id = file["texts/text"].asstr()[()], file["text_id"][()]
        assert list(file["texts/field_names"].asstr())[:2] == ["cell_type", "development_stage"]
        assert texts[text_id[1]] == f"{B} tissue: blood.; {BOTH}"
        assert file["texts/fields/disease"].asstr()[text_id[1]] == BOTH
        assert list(file["type_id"]) == [236, 236, 542, -1, 9999999] and text_id[3] == -1 and len(set(file["group_id"][:3])) == 3
        assert (file["types/term"][()].tolist(), file["types/ancestor"][()].tolist()) == ([236], [542])
        assert json.loads(file.attrs["funnel"]) == funnel and file["inputs/counts"].asstr()[0] == "raw/X"


def test_a_template_names_columns_and_titles(langcell, made, tmp_path):
    (tmp_path / "t.txt").write_text("tissue\torgan\ncell_type\n")
    langcell("tokenize", tmp_path / "cells.h5ad", "--template", tmp_path / "t.txt", *made)
    with h5py.File(tmp_path / "c.h5") as file:
        assert file["texts/text"].asstr()[0] == f"organ: blood.; {B}" and file["group_id"][0] == file["group_id"][1]


def test_other_organisms_and_other_files_are_refused(langcell, made, tmp_path):
    cellxgene(tmp_path / "mouse.h5ad", organism="NCBITaxon:10090")
    assert "NCBITaxon:10090" in langcell("tokenize", tmp_path / "mouse.h5ad", "--cellxgene", *made, code=3).stderr
    (tmp_path / "t.txt").write_text("organ\n")
    said = langcell("tokenize", tmp_path / "cells.h5ad", "--template", tmp_path / "t.txt", *made, code=3).stderr
    assert "none of the template's columns" in said
    assert not (tmp_path / "c.h5").exists()
