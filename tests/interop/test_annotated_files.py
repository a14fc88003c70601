"""annotate adds to a copy: everything that was in the input is still there and equal, for anndata's own eyes, and scanpy goes on from it."""

import hashlib
import json

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy
import scipy.sparse as sparse

from h5ad_files import as_anndata_07, assert_unchanged, rich

pytestmark = pytest.mark.filterwarnings("ignore")
anndata.settings.remove_unused_categories = False
COLUMNS = ["label", "label_final", "score", "margin", "similarity", "match", "entropy", "second", "unassigned", "reason"]


@pytest.fixture(scope="module")
def made(langcell, tmp_path_factory):
    """A model of a few steps, its texts, the ids of its genes, and how to annotate with it."""
    folder = tmp_path_factory.mktemp("made")
    langcell("simulate", "--out", folder / "a.h5ad", "--texts", folder / "t.json", "--cells", 60, "--genes", 900, "--types", 3, "--seed", 2)
    langcell(
        "train",
        folder / "a.h5ad",
        "--texts",
        folder / "t.json",
        "--label-key",
        "cell_type",
        "--out",
        folder / "model",
        "--preset",
        "tiny",
        "--steps",
        5,
        "--set",
        "train.batch_size=8",
        "--quiet",
    )
    ids = [line.split("\t")[1] for line in (folder / "model/genes.tsv").read_text().splitlines()[3:]]

    def annotate(source, target, *more, code=0):
        return langcell("annotate", source, "--model", folder / "model", "--texts", folder / "t.json", "--out", target, *more, code=code)

    return annotate, ids, list(json.loads((folder / "t.json").read_text()))


def assert_results(path, labels, prefix="langcell"):
    data = anndata.read_h5ad(path)
    assert list(data.obs.columns[-len(COLUMNS) :]) == [f"{prefix}_{column}" for column in COLUMNS]
    assert list(data.obs[f"{prefix}_label"].cat.categories) == labels
    assert list(data.obs[f"{prefix}_label_final"].cat.categories) == labels + ["unassigned"]
    assert data.obs[f"{prefix}_score"].dtype == np.float32 and data.obs[f"{prefix}_unassigned"].dtype == bool
    assert set(data.obs[f"{prefix}_reason"]) <= {"ok", "no_genes", "low_genes", "low_match", "low_margin"}
    z, scores = data.obsm[f"X_{prefix}"], data.obsm[f"{prefix}_scores"]
    assert z.dtype == scores.dtype == np.float32 and scores.shape == (data.n_obs, len(labels))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.array(labels)[scores.argmax(1)], data.obs[f"{prefix}_label"])
    assert data.uns[prefix]["alpha"] == pytest.approx(0.1) and "model_hash" in data.uns[prefix]
    return data


def only_counts(data, x=sparse.csr_matrix):
    """Counts in X and nowhere else."""
    data.X = x(data.layers["counts"])
    data.layers, data.raw = {}, None


def counts_of(kind):
    def change(data):
        only_counts(data)
        data.X = data.X.astype(kind)

    return change


def cellxgene(data):
    """Columns and facts that CELLxGENE's files have."""
    data.obs["cell_type_ontology_term_id"] = pd.Categorical(["CL:0000236"] * data.n_obs)
    data.obs["is_primary_data"] = True
    data.var["feature_is_filtered"] = np.arange(data.n_vars) % 9 == 0
    data.uns["schema_version"], data.uns["title"], data.uns["default_embedding"] = "5.2.0", "Some cells", "X_pca"


def rewritten(file, name, values, **more):
    attributes = dict(file[name].attrs)
    del file[name]
    made = file.create_dataset(name, data=values, **more)
    made.attrs.update(attributes)


def long_indices(file):
    for part in ("indices", "indptr"):
        rewritten(file, f"X/{part}", file[f"X/{part}"][:].astype(np.int64))


def unsorted_columns(file):
    columns, values, starts = file["X/indices"][:], file["X/data"][:], file["X/indptr"][:]
    for begin, end in zip(starts[:-1], starts[1:], strict=True):
        columns[begin:end], values[begin:end] = columns[begin:end][::-1].copy(), values[begin:end][::-1].copy()
    rewritten(file, "X/indices", columns)
    rewritten(file, "X/data", values)


def names_of_fixed_width(file):
    rewritten(file, "obs/_index", file["obs/_index"].asstr()[:].astype("S12"))


def small_chunks(file):
    rewritten(file, "X/data", file["X/data"][:], chunks=(7,), compression="gzip", shuffle=True)


FORMS = {"csr": {}, "csc": {"x": sparse.csc_matrix, "layer": sparse.csc_matrix}, "dense": {"x": np.asarray}}
FILES = {  # form, compression, a change of the data, a change of the file
    f"{form}, {compression or 'plain'}, {age}": (kwargs, compression, None, change)
    for form, kwargs in FORMS.items()
    for compression in (None, "gzip", "lzf")
    for age, change in (("now", None), ("anndata 0.7", as_anndata_07))
} | {
    "counts in X": ({}, "gzip", only_counts, None),
    "counts in X by columns": ({}, "gzip", lambda data: only_counts(data, sparse.csc_matrix), None),
    "counts in a dense X": ({}, "gzip", lambda data: only_counts(data, lambda x: x.toarray()), None),
    "uint16 counts": ({}, None, counts_of(np.uint16), None),
    "int64 counts": ({}, None, counts_of(np.int64), None),
    "float64 counts": ({}, None, counts_of(np.float64), None),
    "CELLxGENE": ({}, "gzip", cellxgene, None),
    "64-bit indices": ({}, None, only_counts, long_indices),
    "unsorted columns": ({}, None, only_counts, unsorted_columns),
    "names in two languages": ({}, None, lambda data: data.obs.rename(columns={"note": "Σχόλιο", "score": "Punktzahl (ä)"}, inplace=True), None),
    "names of fixed width": ({}, None, only_counts, names_of_fixed_width),
    "chunks of seven": ({}, None, only_counts, small_chunks),
}


def test_there_are_thirty_files():
    assert len(FILES) == 30


@pytest.mark.parametrize("name", FILES)
def test_everything_in_the_input_is_unchanged(made, tmp_path, name):
    annotate, ids, labels = made
    form, compression, change, rewrite = FILES[name]
    data = rich(ids=ids, **form)
    if change:
        change(data)
    if rewrite is as_anndata_07:
        data.obs = data.obs.drop(columns=["partly", "flags"])  # newer than 0.7
    data.write_h5ad(tmp_path / "in.h5ad", compression=compression)
    if rewrite is as_anndata_07:
        as_anndata_07(tmp_path / "in.h5ad")
    elif rewrite:
        with h5py.File(tmp_path / "in.h5ad", "r+") as file:
            rewrite(file)
    before = hashlib.sha256((tmp_path / "in.h5ad").read_bytes()).hexdigest()
    annotate(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert hashlib.sha256((tmp_path / "in.h5ad").read_bytes()).hexdigest() == before
    assert_unchanged(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    found = assert_results(tmp_path / "out.h5ad", labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]
    if rewrite is as_anndata_07:
        assert found.obs["quality"].cat.ordered
        with h5py.File(tmp_path / "out.h5ad") as file:
            assert file["obs"].attrs["encoding-version"] == "0.1.0" and "__categories" in file["obs"]


def test_results_are_overwritten_only_when_asked(made, tmp_path):
    annotate, ids, labels = made
    rich(ids=ids).write_h5ad(tmp_path / "in.h5ad")
    annotate(tmp_path / "in.h5ad", tmp_path / "once.h5ad")
    annotate(tmp_path / "once.h5ad", tmp_path / "twice.h5ad", code=2)
    assert not (tmp_path / "twice.h5ad").exists()
    annotate(tmp_path / "once.h5ad", tmp_path / "twice.h5ad", "--overwrite")
    assert_unchanged(tmp_path / "once.h5ad", tmp_path / "twice.h5ad")
    annotate(tmp_path / "once.h5ad", tmp_path / "both.h5ad", "--prefix", "again")
    assert_unchanged(tmp_path / "once.h5ad", tmp_path / "both.h5ad")
    assert_results(tmp_path / "both.h5ad", labels, "again")


def test_scanpy_goes_on_from_the_embedding(made, tmp_path):
    annotate, ids, _ = made
    rich(ids=ids).write_h5ad(tmp_path / "in.h5ad")
    annotate(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    data = anndata.read_h5ad(tmp_path / "out.h5ad")
    scanpy.pp.neighbors(data, use_rep="X_langcell", n_neighbors=10)
    scanpy.tl.umap(data)
    assert data.obsm["X_umap"].shape == (data.n_obs, 2) and np.isfinite(data.obsm["X_umap"]).all()
