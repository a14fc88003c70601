"""Files of 10 to 100 kB in every form and encoding that langcell reads through HDF5, to be damaged.   usage: mutation_bases.py FOLDER"""

import pathlib
import sys
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sparse

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "interop"))
from h5ad_files import as_anndata_07, rich  # noqa: E402

CELLS, GENES = 40, 160


def counts(dtype=np.float32, seed=0):
    return np.random.default_rng(seed).negative_binomial(0.6, 0.3, (CELLS, GENES)).astype(dtype)


def plain(x, **options):
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical(["B", "T"] * (CELLS // 2)), "note": [f"n{i}" for i in range(CELLS)]},
        index=[f"c{i}" for i in range(CELLS)],
    )
    return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"ENSG{i:011}" for i in range(GENES)]), **options)


def tenx(path, version, **storage):
    by_cell = sparse.csr_matrix(counts(np.int32))
    ids = np.array([f"ENSG{i:011}" for i in range(GENES)], "S")
    names = np.array([f"G{i}" for i in range(GENES)], "S")
    with h5py.File(path, "w") as f:
        m = f.create_group("matrix" if version == 3 else "GRCh38")
        m.create_dataset("barcodes", data=np.array([f"ACGT{i:04}-1" for i in range(CELLS)], "S18"), **storage)
        m.create_dataset("data", data=by_cell.data, **storage)
        m.create_dataset("indices", data=by_cell.indices.astype(np.int64), **storage)
        m.create_dataset("indptr", data=by_cell.indptr.astype(np.int64), **storage)
        m["shape"] = np.array([GENES, CELLS], np.int32)
        g = m.create_group("features") if version == 3 else m
        g["id" if version == 3 else "genes"], g["name" if version == 3 else "gene_names"] = ids, names
        if version == 3:
            g["feature_type"] = np.array(["Gene Expression"] * GENES, "S")
            g["genome"] = np.array(["GRCh38"] * GENES, "S")


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for compression in (None, "gzip", "lzf"):
        tag = compression or "plain"
        for name, x in (("csr", sparse.csr_matrix), ("csc", sparse.csc_matrix), ("dense", np.asarray)):
            plain(x(counts())).write_h5ad(folder / f"{name}_{tag}.h5ad", compression=compression)
        tenx(folder / f"tenx3_{tag}.h5", 3, **({"compression": compression, "chunks": True} if compression else {}))
        tenx(folder / f"tenx2_{tag}.h5", 2, **({"compression": compression, "chunks": True} if compression else {}))
    for kind in (np.int64, np.uint8, np.float64):
        plain(sparse.csr_matrix(counts(kind))).write_h5ad(folder / f"csr_{np.dtype(kind).name}.h5ad", compression="gzip")
    rich(17, 61).write_h5ad(folder / "rich.h5ad")
    rich(17, 61).write_h5ad(folder / "rich_07.h5ad")
    as_anndata_07(folder / "rich_07.h5ad")
    with h5py.File(folder / "newest.h5ad", "w", libver="latest") as new, h5py.File(folder / "csr_gzip.h5ad") as old:
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)
    sizes = [path.stat().st_size for path in folder.iterdir()]
    print(f"{len(sizes)} files of {min(sizes) // 1000} to {max(sizes) // 1000} kB")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(pathlib.Path(sys.argv[1]))
