"""annotate adds to a copy: everything that was in the input is still there and equal, for anndata's own eyes, and scanpy goes on from it."""

import hashlib
import json

import anndata
import h5py
import numpy as np
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


@pytest.mark.parametrize(
    "form", [dict(), dict(x=sparse.csc_matrix, layer=sparse.csc_matrix), dict(x=np.asarray)], ids=["csr", "csc", "dense"]
)
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_everything_in_the_input_is_unchanged(made, tmp_path, form, compression):
    annotate, ids, labels = made
    rich(ids=ids, **form).write_h5ad(tmp_path / "in.h5ad", compression=compression)
    before = hashlib.sha256((tmp_path / "in.h5ad").read_bytes()).hexdigest()
    annotate(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert hashlib.sha256((tmp_path / "in.h5ad").read_bytes()).hexdigest() == before
    assert_unchanged(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert_results(tmp_path / "out.h5ad", labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]


def test_legacy_categoricals_survive_the_new_columns(made, tmp_path):
    annotate, ids, labels = made
    data = rich(ids=ids)
    data.obs = data.obs.drop(columns=["partly", "flags"])  # newer than 0.7
    data.write_h5ad(tmp_path / "in.h5ad")
    as_anndata_07(tmp_path / "in.h5ad")
    annotate(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert_unchanged(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert assert_results(tmp_path / "out.h5ad", labels).obs["quality"].cat.ordered
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
