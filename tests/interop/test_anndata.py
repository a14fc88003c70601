"""What split and simulate write, read by anndata, h5py and scanpy; and what they say of files that are not as wanted."""

import hashlib
import json
import resource
import subprocess

import anndata
import h5py
import numpy as np
import pytest
import scanpy
import scipy.sparse as sparse
from anndata.tests.helpers import assert_equal

from h5ad_files import as_anndata_07, rich

pytestmark = pytest.mark.filterwarnings(
    "ignore::anndata.OldFormatWarning", "ignore::FutureWarning", "ignore::anndata.ImplicitModificationWarning"
)
anndata.settings.remove_unused_categories = False  # a cut keeps the list of categories as it was


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def split(langcell, source, folder, *more, code=0):
    train, test = folder / "train.h5ad", folder / "test.h5ad"
    done = langcell(
        "split", source, "--key", "cell_type", "--fraction", "0.25", "--train", train, "--test", test, "--json", *more, code=code
    )
    return (train, test, json.loads(done.stdout)) if code == 0 else done


def assert_parts_of(whole, *paths):
    parts = [anndata.read_h5ad(path) for path in paths]
    for part in parts:
        assert_equal(part, whole[part.obs_names].copy(), exact=True)
        for table in ("layers", "obsm", "obsp"):
            for key, value in getattr(whole, table).items():
                assert type(getattr(part, table)[key]) is type(value), key
    names = [name for part in parts for name in part.obs_names]
    assert sorted(names) == sorted(whole.obs_names)
    return parts


@pytest.mark.parametrize(
    "form", [dict(), dict(x=sparse.csc_matrix, layer=sparse.csc_matrix), dict(x=np.asarray)], ids=["csr", "csc", "dense"]
)
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_both_parts_hold_what_anndata_would_cut(langcell, tmp_path, form, compression):
    whole = rich(**form)
    whole.write_h5ad(tmp_path / "in.h5ad", compression=compression)
    before = digest(tmp_path / "in.h5ad")
    train, test, said = split(langcell, tmp_path / "in.h5ad", tmp_path)
    assert digest(tmp_path / "in.h5ad") == before
    parts = assert_parts_of(anndata.read_h5ad(tmp_path / "in.h5ad"), train, test)
    assert [part.n_obs for part in parts] == [said["n_train"], said["n_test"]]
    counts = parts[1].obs.cell_type.value_counts()
    for label, n in anndata.read_h5ad(tmp_path / "in.h5ad").obs.cell_type.value_counts().items():
        assert counts[label] == min(max(int(n * 0.25 + 0.5), 1), n - 1) == said["labels"][label]["test"]


def test_a_file_of_anndata_07_is_cut_with_its_categories(langcell, tmp_path):
    whole = rich()
    whole.obs = whole.obs.drop(columns=["partly", "flags"])  # newer than 0.7
    whole.write_h5ad(tmp_path / "in.h5ad")
    as_anndata_07(tmp_path / "in.h5ad")
    old = anndata.read_h5ad(tmp_path / "in.h5ad")
    assert_equal(old, whole)  # the old form holds what the new one did
    train, test, _ = split(langcell, tmp_path / "in.h5ad", tmp_path)
    assert_parts_of(old, train, test)
    with h5py.File(test) as file:
        assert file[file["obs/quality"].attrs["categories"]].name == "/obs/__categories/quality"
        assert file[file["var/biotype"].attrs["categories"]].name == "/var/__categories/biotype"


def test_groups_are_never_divided(langcell, tmp_path):
    rich().write_h5ad(tmp_path / "in.h5ad")
    train, test, said = split(langcell, tmp_path / "in.h5ad", tmp_path, "--group", "donor_id")
    groups = [set(anndata.read_h5ad(path, backed="r").obs.donor_id) for path in (train, test)]
    assert groups[0].isdisjoint(groups[1]) and groups[0] | groups[1] == {"d0", "d1", "d2", "d3"}
    assert [set(said["groups"][side]) for side in ("train", "test")] == groups


def test_the_seed_decides_the_split(langcell, tmp_path):
    rich().write_h5ad(tmp_path / "in.h5ad")
    names = []
    for seed in (0, 0, 1):
        _, test, _ = split(langcell, tmp_path / "in.h5ad", tmp_path, "--seed", seed, "--overwrite")
        names.append(list(anndata.read_h5ad(test, backed="r").obs_names))
    assert names[0] == names[1] != names[2]


def test_real_cells_split_as_before(langcell, shared, tmp_path):
    source = shared("data/pbmc3k.h5ad")
    train, test, said = split(langcell, source, tmp_path)
    assert_parts_of(anndata.read_h5ad(source), train, test)
    assert said["n_train"] + said["n_test"] == 2111


@pytest.fixture(scope="module")
def simulated(langcell, tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    done = langcell(
        "simulate",
        "--out",
        folder / "a.h5ad",
        "--texts",
        folder / "t.json",
        "--cells",
        601,
        "--genes",
        4001,
        "--types",
        5,
        "--donors",
        3,
        "--seed",
        4,
        "--json",
    )
    return anndata.read_h5ad(folder / "a.h5ad"), json.loads((folder / "t.json").read_text()), json.loads(done.stdout), folder


def test_simulated_cells_are_counts_with_truth(simulated):
    data, texts, said, _ = simulated
    assert data.shape == (601, 4001) and data.X.dtype == np.float32 and data.X.has_canonical_format
    assert data.X.data.min() >= 1 and (data.X.data == np.round(data.X.data)).all()
    assert data.var_names.str.fullmatch(r"ENSG\d{11}").all() and data.var_names.is_unique and data.var.gene_name.is_unique
    np.testing.assert_array_equal(data.obs.n_counts, np.asarray(data.X.sum(1)).ravel())
    assert list(data.obs.cell_type.cat.categories) == list(texts) == list(said["types"])
    assert data.obs.cell_type.value_counts().to_dict() == said["types"] and data.obs.donor_id.nunique() == 3
    assert len(set(texts.values())) == 5 and all(text.startswith("cell type: ") for text in texts.values())


def test_simulated_texts_name_the_markers_of_their_type(simulated):
    data, texts, _, _ = simulated
    means = data.to_df().div(data.obs.n_counts, axis=0).groupby(data.obs.cell_type, observed=True).mean()
    means.columns = data.var.gene_name
    for label, text in texts.items():
        markers = text.split("marked by ")[1].rstrip("; ").split(", ")
        others = means.drop(index=label)[markers].max()
        assert len(markers) >= 3 and (means.loc[label, markers] > 3 * others).all(), label


def test_simulated_cells_go_through_scanpy(simulated):
    data = simulated[0].copy()
    scanpy.pp.normalize_total(data, target_sum=1e4)
    scanpy.pp.log1p(data)
    scanpy.pp.pca(data, n_comps=20)
    scanpy.pp.neighbors(data)
    nearest = data.obsp["connectivities"].argmax(1)
    types = data.obs.cell_type.to_numpy()
    assert (types[np.asarray(nearest).ravel()] == types).mean() > 0.8


def test_the_seed_decides_the_simulation(langcell, simulated, tmp_path):
    data, _, _, _ = simulated
    for seed in (4, 5):
        langcell(
            "simulate",
            "--out",
            tmp_path / f"{seed}.h5ad",
            "--texts",
            tmp_path / f"{seed}.json",
            "--cells",
            601,
            "--genes",
            4001,
            "--types",
            5,
            "--donors",
            3,
            "--seed",
            seed,
        )
    assert_equal(anndata.read_h5ad(tmp_path / "4.h5ad"), data, exact=True)
    assert (anndata.read_h5ad(tmp_path / "5.h5ad").X != data.X).nnz > 0


def test_simulated_genes_come_from_a_vocabulary(langcell, shared, tmp_path):
    genes = shared("data/geneformer_v1_genes.tsv")
    langcell(
        "simulate",
        "--out",
        tmp_path / "a.h5ad",
        "--texts",
        tmp_path / "t.json",
        "--cells",
        20,
        "--genes",
        3000,
        "--types",
        20,
        "--genes-from",
        genes,
    )
    data = anndata.read_h5ad(tmp_path / "a.h5ad")
    known = dict(line.split("\t")[1:3] for line in genes.read_text().splitlines()[3:])
    assert data.n_vars == 3000 and all(gene in known for gene in data.var_names)
    assert data.var_names[data.var.gene_name == "MS4A1"][0] in known


def test_what_lzf_compressed_is_read_and_written(langcell, tmp_path):
    data = rich(cells=300)
    data.write_h5ad(tmp_path / "lzf.h5ad", compression="lzf")
    langcell("split", tmp_path / "lzf.h5ad", "--key", "cell_type", "--train", tmp_path / "a.h5ad", "--test", tmp_path / "b.h5ad", "--quiet")
    part = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert_equal(part, data[part.obs_names].copy())


def test_faults_have_their_exit_code_and_leave_nothing(langcell, tmp_path):
    rich().write_h5ad(tmp_path / "in.h5ad")
    whole = (tmp_path / "in.h5ad").read_bytes()
    (tmp_path / "short.h5ad").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.h5ad").write_text("no HDF5 here")
    (tmp_path / "there.h5ad").write_text("keep me")
    rich().write_h5ad(tmp_path / "foreign.h5ad", compression="lzf")
    data = (tmp_path / "foreign.h5ad").read_bytes()  # filter 32000, its name 8 bytes long, becomes one that nobody has
    assert b"\x00\x7d\x08\x00" in data
    (tmp_path / "foreign.h5ad").write_bytes(data.replace(b"\x00\x7d\x08\x00", b"\x0f\x7d\x08\x00"))
    start = sorted(path.name for path in tmp_path.iterdir())

    def fails(code, word, source="in.h5ad", train=tmp_path / "a.h5ad", test=tmp_path / "b.h5ad", key="cell_type", more=()):
        done = langcell("split", tmp_path / source, "--key", key, "--train", train, "--test", test, "--quiet", *more, code=code)
        assert word in done.stderr and done.stderr.count("\n") == 1 and done.stdout == "", done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == start

    fails(3, "no such file", source="nowhere.h5ad")
    fails(3, "cut short", source="short.h5ad")
    fails(3, "not an HDF5 file", source="text.h5ad")
    fails(3, "(HDF5 filter 32015), which this program cannot read", source="foreign.h5ad")
    fails(3, "no column 'nope'", key="nope")
    fails(2, "is the input", train=tmp_path / "in.h5ad", more=["--overwrite"])
    fails(2, "exists already", test=tmp_path / "there.h5ad")
    fails(2, "both", train=tmp_path / "b.h5ad")
    fails(5, "nowhere", train=tmp_path / "nowhere" / "a.h5ad")
    assert (tmp_path / "in.h5ad").read_bytes() == whole


def test_a_full_disk_is_said_and_nothing_is_left(binary, tmp_path):
    data = rich(cells=700, genes=900)
    data.write_h5ad(tmp_path / "in.h5ad")
    limit = 300_000  # bytes a file may have: the write that would pass it fails as on a full disk
    split = ["split", tmp_path / "in.h5ad", "--key", "cell_type", "--train", tmp_path / "a.h5ad", "--test", tmp_path / "b.h5ad"]
    simulate = ["simulate", "--out", tmp_path / "a.h5ad", "--texts", tmp_path / "t.json", "--cells", "900"]
    for command in (split, simulate):
        done = subprocess.run(
            [binary, *command, "--quiet"],
            capture_output=True,
            text=True,
            restore_signals=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert done.returncode == 5 and "cannot be written: File too large" in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]
