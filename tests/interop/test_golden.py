"""The published implementation's scores on real cells, through the whole program: counts and texts in, labelled .h5ad out."""

import json

import anndata
import numpy as np
import pytest


@pytest.fixture(scope="module")
def annotated(langcell, shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    golden, genes = shared("golden/tiny"), shared("data/geneformer_v1_genes.tsv")
    langcell("import", "--langcell", golden / "model", "--genes", genes, "--out", folder / "model")
    langcell(
        "annotate",
        golden / "cells.h5ad",
        "--model",
        folder / "model",
        "--texts",
        golden / "texts.json",
        "--out",
        folder / "out.h5ad",
        "--precision",
        "fp32",
    )
    return anndata.read_h5ad(folder / "out.h5ad"), np.load(golden / "expected.npz"), list(json.loads((golden / "texts.json").read_text()))


def test_embeddings_are_the_published_ones(annotated):
    data, expected, _ = annotated
    assert np.abs(data.obsm["X_langcell"] - expected["cell_z"]).max() < 2e-5


def test_scores_and_labels_are_the_published_ones(annotated):
    data, expected, labels = annotated
    assert np.abs(data.obsm["langcell_scores"] - expected["score"]).max() < 3e-6
    assert list(data.obs["langcell_label"]) == [labels[i] for i in expected["pred"]]
    assert list(data.obs["langcell_label"].cat.categories) == labels


def test_similarity_and_match_are_those_of_the_label(annotated):
    data, expected, _ = annotated
    row = np.arange(data.n_obs)
    assert np.abs(data.obs["langcell_similarity"] - expected["sim"][row, expected["pred"]]).max() < 1e-5
    assert np.abs(data.obs["langcell_match"] - expected["p_match"][row, expected["pred"]]).max() < 2e-5
