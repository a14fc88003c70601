"""An .h5ad file with everything anndata can put into one, the same in the form of anndata 0.7, and the comparison by anndata's own eyes."""

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sparse
from anndata.tests.helpers import assert_equal


def rich(cells=61, genes=257, seed=3, x=sparse.csr_matrix, layer=sparse.csr_matrix, ids=None):
    """log-normalised X, counts in a layer and in raw (which has more genes), every kind of obs column, obsm, obsp, varm, varp, uns."""
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(rng.negative_binomial(0.6, 0.3, (cells, genes)).astype(np.float32))
    types = rng.choice(["B", "CD14+ Mono", "µ-cell", "NK"], cells, p=[0.4, 0.3, 0.2, 0.1])
    quality = pd.Categorical(rng.choice(["low", "mid", "high"], cells), categories=["low", "mid", "high", "never"], ordered=True)
    partly = pd.array(rng.integers(0, 9, cells), dtype="Int64")
    partly[::7] = pd.NA
    flags = pd.array(rng.random(cells) < 0.5, dtype="boolean")
    flags[::5] = pd.NA
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(types),
            "donor_id": pd.Categorical([f"d{i % 4}" for i in range(cells)]),
            "quality": quality,
            "holes": pd.Categorical([None if i % 6 == 0 else "yes" for i in range(cells)]),
            "whole_categories": pd.Categorical(rng.integers(0, 3, cells)),
            "partly": partly,
            "flags": flags,
            "passed": rng.random(cells) < 0.8,
            "score": rng.normal(size=cells).astype(np.float32),
            "number": np.arange(cells),
            "note": [f"Zelle {i} – ä" for i in range(cells)],
        },
        index=[f"cell{i}" for i in range(cells)],
    )
    ids = [f"ENSG{i:011}" for i in range(genes)] if ids is None else list(ids)[:genes]
    var = pd.DataFrame(
        {"gene_name": [f"G{i}" for i in range(genes)], "biotype": pd.Categorical(["a", "b"] * (genes // 2) + ["a"] * (genes % 2))},
        index=ids,
    )
    full = anndata.AnnData(counts, obs=obs, var=var)
    few = slice(0, genes - 50)
    data = full[:, few].copy()
    data.raw = full
    data.layers["counts"] = layer(data.X)
    data.layers["dense"] = data.X.toarray().astype(np.float64)
    logged = data.X.copy()
    logged = sparse.diags(1e4 / np.asarray(logged.sum(1)).ravel()) @ logged
    logged.data = np.log1p(logged.data).astype(np.float32)
    data.X = x(logged.toarray().astype(np.float32))
    data.obsm["X_pca"] = rng.normal(size=(cells, 5))
    data.obsm["sparse"] = sparse.random(cells, 9, 0.3, "csr", random_state=1)
    data.obsm["table"] = pd.DataFrame({"a": np.arange(cells), "b": pd.Categorical(types)}, index=data.obs_names)
    data.obsp["connectivities"] = sparse.random(cells, cells, 0.1, "csr", random_state=2)
    data.obsp["by_column"] = sparse.random(cells, cells, 0.1, "csc", random_state=4)
    data.obsp["dense"] = rng.normal(size=(cells, cells))
    data.varm["PCs"] = rng.normal(size=(data.n_vars, 5))
    data.varp["genes"] = sparse.random(data.n_vars, data.n_vars, 0.01, "csr", random_state=3)
    data.uns["nested"] = {
        "text": "grüße",
        "number": 3,
        "share": 0.5,
        "truth": True,
        "list": np.array(["x", "y"]),
        "deep": {"table": obs[["score", "cell_type"]].iloc[:5].copy()},
    }
    data.uns["cell_type_colors"] = np.array(["#111111", "#222222", "#333333", "#444444"])
    return data


def as_anndata_07(path):
    """Turns obs and var of a written file into what anndata 0.7 wrote: codes with an object reference to __categories, no encoding on elements."""
    with h5py.File(path, "r+") as file:
        for table in (file["obs"], file["var"]):
            for name in list(table):
                member = table[name]
                if isinstance(member, h5py.Group) and "codes" in member:
                    codes, categories, ordered = member["codes"][()], member["categories"], bool(member.attrs["ordered"])
                    values = categories.asstr()[()].astype(object) if h5py.check_string_dtype(categories.dtype) else categories[()]
                    del table[name]
                    text = h5py.string_dtype() if values.dtype == object else None
                    where = table.require_group("__categories").create_dataset(name, data=values, dtype=text)
                    where.attrs["ordered"] = ordered
                    table.create_dataset(name, data=codes).attrs["categories"] = where.ref
                elif isinstance(member, h5py.Dataset):
                    for attribute in ("encoding-type", "encoding-version"):
                        member.attrs.pop(attribute, None)
            table.attrs["encoding-version"] = "0.1.0"
        for attribute in ("encoding-type", "encoding-version"):
            del file.attrs[attribute]


def without(data, before):
    """data less what before did not have: columns of obs, obsm, uns."""
    data = data.copy()
    data.obs = data.obs[[column for column in data.obs if column in before.obs]]
    for part in ("obsm", "uns"):
        for key in [key for key in getattr(data, part) if key not in getattr(before, part)]:
            del getattr(data, part)[key]
    return data


def assert_unchanged(before_path, after_path):
    """Everything that the first file holds is in the second one, equal for anndata (layers, raw, obsp, uns, nullable, ordered and legacy categoricals)."""
    before, after = anndata.read_h5ad(before_path).copy(), anndata.read_h5ad(after_path)  # a copy, as `after` is: scipy narrows indices
    assert list(after.obs.columns[: len(before.obs.columns)]) == list(before.obs.columns)
    assert_equal(before, without(after, before), exact=True)
