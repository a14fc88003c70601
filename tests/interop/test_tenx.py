"""One data set as .h5ad and in every form of 10x gives the same tokens; what is not genes is left out and said; results of such files."""

import csv
import gzip
import shutil

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scanpy
import scipy.io
import scipy.sparse as sparse

pytestmark = pytest.mark.filterwarnings("ignore")
CELLS, GENES = 53, 400


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    counts = sparse.csr_matrix(rng.negative_binomial(0.5, 0.3, (CELLS, GENES)).astype(np.int32))
    barcodes = [f"ACGT{i:04}-1" for i in range(CELLS)]
    ids = [f"ENSG{i:011}" for i in range(GENES)]
    return counts, barcodes, ids, [f"G{i}" for i in range(GENES)]


def write_v3(path, counts, barcodes, ids, names, types=None, genomes=None):
    columns = counts.tocsr()  # 10x stores features × barcodes by column: cells by row
    with h5py.File(path, "w") as f:
        m = f.create_group("matrix")
        m["barcodes"] = np.array(barcodes, "S18")
        m["data"], m["indices"], m["indptr"] = columns.data.astype("<i4"), columns.indices.astype("<i8"), columns.indptr.astype("<i8")
        m["shape"] = np.array(counts.shape[::-1], "<i4")
        g = m.create_group("features")
        g["id"], g["name"] = np.array(ids, "S"), np.array(names, "S")
        g["feature_type"] = np.array(types or ["Gene Expression"] * len(ids), "S")
        g["genome"] = np.array(genomes or ["GRCh38"] * len(ids), "S")
    return path


def write_v2(path, parts):
    with h5py.File(path, "w") as f:
        for genome, (counts, barcodes, ids, names) in parts.items():
            columns = counts.tocsr()
            g = f.create_group(genome)
            g["barcodes"], g["genes"], g["gene_names"] = np.array(barcodes, "S"), np.array(ids, "S"), np.array(names, "S")
            g["data"], g["indices"], g["indptr"] = columns.data, columns.indices, columns.indptr
            g["shape"] = np.array(counts.shape[::-1])
    return path


def write_folder(folder, counts, barcodes, ids, names, version=3, kind="integer", shuffle=False):
    folder.mkdir()
    pack = (
        (lambda name, text: gzip.open(folder / f"{name}.gz", "wt").write(text))
        if version == 3
        else (lambda name, text: (folder / name).write_text(text))
    )
    pack("barcodes.tsv", "".join(f"{b}\n" for b in barcodes))
    rows = [f"{i}\t{n}" + ("\tGene Expression" if version == 3 else "") for i, n in zip(ids, names)]
    pack("features.tsv" if version == 3 else "genes.tsv", "\n".join(rows) + "\n")
    m = counts.T.tocoo()
    order = np.lexsort((m.row, m.col)) if not shuffle else np.random.default_rng(1).permutation(m.nnz)
    lines = [f"%%MatrixMarket matrix coordinate {kind} general\n% made by a test\n{m.shape[0]} {m.shape[1]} {m.nnz}\n"]
    lines += [f"{m.row[k] + 1} {m.col[k] + 1} {m.data[k]}{'.0' if kind == 'real' else ''}\n" for k in order]
    pack("matrix.mtx", "".join(lines))
    return folder


@pytest.fixture(scope="module")
def forms(data, tmp_path_factory):
    """{name: path} of the same counts, each of which scanpy reads as it should."""
    folder = tmp_path_factory.mktemp("tenx")
    counts, barcodes, ids, names = data
    var, obs = pd.DataFrame({"gene_name": names}, index=ids), pd.DataFrame(index=barcodes)
    anndata.AnnData(counts.astype(np.float32), obs, var).write_h5ad(folder / "a.h5ad")
    anndata.AnnData(counts.astype(np.float32), obs, var).write_h5ad(folder / "lzf.h5ad", compression="lzf")
    made = {
        "h5ad": folder / "a.h5ad",
        "h5ad lzf": folder / "lzf.h5ad",
        "v3": write_v3(folder / "v3.h5", *data),
        "v2": write_v2(folder / "v2.h5", {"hg19": data}),
        "mtx gz": write_folder(folder / "mtx", *data),
        "mtx v2": write_folder(folder / "mtx2", *data, version=2, kind="real"),
        "mtx shuffled": write_folder(folder / "mtx3", *data, shuffle=True),
    }
    for name, read in {
        "v3": lambda p: scanpy.read_10x_h5(p),
        "v2": lambda p: scanpy.read_10x_h5(p),
        "mtx gz": lambda p: scanpy.read_10x_mtx(p, var_names="gene_ids"),
        "mtx v2": lambda p: scanpy.read_10x_mtx(p, var_names="gene_ids"),
    }.items():
        assert (read(made[name]).X != counts).nnz == 0, name
    return made


def tokens_of(path):
    with h5py.File(path) as corpus:
        return corpus["tokens"][:], corpus["offsets"][:], corpus["obs/name"][:]


def test_every_form_gives_the_same_tokens(langcell, forms, tmp_path):
    langcell("vocab", "--from", forms["h5ad"], "--out", tmp_path / "genes.tsv")
    wanted = None
    for name, path in forms.items():
        out = tmp_path / f"{name}.h5".replace(" ", "_")
        langcell("tokenize", path, "--genes", tmp_path / "genes.tsv", "--out", out)
        found = tokens_of(out)
        wanted = wanted or found
        for a, b in zip(wanted, found):
            assert np.array_equal(a, b), name


def test_a_vocabulary_from_a_folder_is_that_from_the_file(langcell, forms, tmp_path):
    langcell("vocab", "--from", forms["h5ad"], "--out", tmp_path / "a.tsv")
    langcell("vocab", "--from", forms["mtx gz"], "--out", tmp_path / "b.tsv")
    assert (tmp_path / "a.tsv").read_text() == (tmp_path / "b.tsv").read_text()


def test_proteins_are_left_out_and_said(langcell, data, forms, tmp_path):
    counts, barcodes, ids, names = data
    types = ["Gene Expression"] * (GENES - 20) + ["Antibody Capture"] * 20
    cite = write_v3(tmp_path / "cite.h5", counts, barcodes, ids[:-20] + [f"CD{i}" for i in range(20)], names, types)
    langcell("vocab", "--from", forms["h5ad"], "--out", tmp_path / "genes.tsv")
    said = langcell("tokenize", cite, "--genes", tmp_path / "genes.tsv", "--out", tmp_path / "c.h5").stderr
    assert "left out: 20 features of 'Antibody Capture'" in said
    plain = anndata.AnnData(counts[:, :-20].astype(np.float32), pd.DataFrame(index=barcodes), pd.DataFrame(index=ids[:-20]))
    plain.write_h5ad(tmp_path / "plain.h5ad")
    langcell("tokenize", tmp_path / "plain.h5ad", "--genes", tmp_path / "genes.tsv", "--out", tmp_path / "p.h5")
    for a, b in zip(tokens_of(tmp_path / "c.h5"), tokens_of(tmp_path / "p.h5")):
        assert np.array_equal(a, b)


def test_two_genomes_need_a_choice(langcell, data, tmp_path):
    counts, barcodes, ids, names = data
    mouse = [f"ENSMUSG{i:011}" for i in range(GENES)]
    two = write_v2(tmp_path / "two.h5", {"hg19": data, "mm10": (counts, barcodes, mouse, names)})
    said = langcell("info", two, code=3).stderr
    assert "several genomes (hg19, mm10)" in said and "--genome" in said
    langcell("vocab", "--from", two, "--genome", "hg19", "--out", tmp_path / "genes.tsv")
    assert "mouse" in langcell("vocab", "--from", two, "--genome", "mm10", "--out", tmp_path / "m.tsv", code=3).stderr
    mixed = write_v3(
        tmp_path / "mixed.h5",
        sparse.hstack([counts, counts]).tocsr(),
        barcodes,
        ids + mouse,
        names * 2,
        None,
        ["GRCh38"] * GENES + ["mm10"] * GENES,
    )
    assert "several genomes (GRCh38, mm10)" in langcell("info", mixed, code=3).stderr
    langcell("vocab", "--from", mixed, "--genome", "GRCh38", "--out", tmp_path / "g.tsv")
    assert (tmp_path / "genes.tsv").read_text() == (tmp_path / "g.tsv").read_text()
    with h5py.File(mixed, "a") as f:
        del f["matrix/features/genome"]
    assert "names no genome" in langcell("vocab", "--from", mixed, "--genome", "GRCh38", "--out", tmp_path / "x.tsv", code=3).stderr


def test_an_unfiltered_matrix_needs_min_counts(langcell, data, tmp_path):
    counts, _, ids, names = data
    many = 100_001
    padded = sparse.vstack([counts, sparse.csr_matrix((many - CELLS, GENES), dtype=np.int32)]).tocsr()
    raw = write_v3(tmp_path / "raw.h5", padded, [f"B{i}" for i in range(many)], ids, names)
    said = langcell("vocab", "--from", raw, "--out", tmp_path / "v.tsv", code=3).stderr
    assert "unfiltered matrix" in said and "--min-counts" in said
    langcell("vocab", "--from", raw, "--min-counts", 1, "--out", tmp_path / "v.tsv")
    langcell("tokenize", raw, "--min-counts", 50, "--genes", tmp_path / "v.tsv", "--out", tmp_path / "c.h5")
    assert len(tokens_of(tmp_path / "c.h5")[2]) == int((counts.sum(1) >= 50).sum())


BROKEN = {
    "an index outside": (
        "matrix.mtx",
        lambda t: t.replace("\n", "\n9999 1 1\n", 3).replace("9999 1 1\n", "", 2),
        "line 4: gene 9999 of 400",
    ),
    "a word for a count": ("matrix.mtx", lambda t: t.rsplit(" ", 1)[0] + " many\n", "'many' where a count is wanted"),
    "cut off": ("matrix.mtx", lambda t: t.rsplit("\n", 3)[0] + "\n", "the line of sizes says"),
    "another kind": ("matrix.mtx", lambda t: t.replace("coordinate", "array"), "wanted 'matrix coordinate integer general'"),
    "a barcode too few": ("barcodes.tsv", lambda t: t.split("\n", 1)[1], "features and 52 barcodes"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_folders_are_said_with_their_line(langcell, data, tmp_path, what):
    name, change, wanted = BROKEN[what]
    folder = write_folder(tmp_path / "m", *data, version=2)
    (folder / name).write_text(change((folder / name).read_text()))
    said = langcell("info", folder, code=3).stderr
    assert wanted in said and said.count("\n") == 1, said


def test_damaged_gzip_is_said(langcell, data, tmp_path):
    folder = write_folder(tmp_path / "m", *data)
    whole = (folder / "matrix.mtx.gz").read_bytes()
    (folder / "matrix.mtx.gz").write_bytes(whole[: len(whole) // 2])
    assert "damaged or cut off" in langcell("info", folder, code=3).stderr


def test_windows_lines_and_gzip_of_several_members_are_read(langcell, data, forms, tmp_path):
    folder = write_folder(tmp_path / "m", *data, version=2)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    text = (folder / "matrix.mtx").read_bytes()
    (folder / "matrix.mtx").unlink()
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress(text[:5000]) + gzip.compress(text[5000:]))
    langcell("vocab", "--from", forms["h5ad"], "--out", tmp_path / "a.tsv")
    langcell("vocab", "--from", folder, "--out", tmp_path / "b.tsv")
    assert (tmp_path / "a.tsv").read_text() == (tmp_path / "b.tsv").read_text()


@pytest.fixture(scope="module")
def model(langcell, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    counts, barcodes, ids, _ = data
    kinds = pd.DataFrame({"cell_type": ["A" if i % 2 else "B" for i in range(CELLS)]}, index=barcodes)
    anndata.AnnData(counts.astype(np.float32), kinds, pd.DataFrame(index=ids)).write_h5ad(folder / "known.h5ad")
    (folder / "t.json").write_text('{"A": "cell type: A cell.", "B": "cell type: B cell."}')
    few = ["--preset", "tiny", "--steps", 8, "--set", "train.batch_size=8", "--quiet"]
    langcell("train", folder / "known.h5ad", "--texts", folder / "t.json", "--label-key", "cell_type", "--out", folder / "model", *few)
    return folder


def test_labels_of_a_folder_are_those_of_the_file_in_every_form_of_result(langcell, forms, model, data, tmp_path):
    common = ["--model", model / "model", "--texts", model / "t.json", "--quiet"]
    langcell("annotate", forms["h5ad"], *common, "--out", tmp_path / "a.h5ad")
    langcell("annotate", forms["mtx gz"], *common, "--out", tmp_path / "b.h5ad")
    langcell("annotate", forms["v3"], *common, "--out", tmp_path / "c.tsv.gz")
    langcell("annotate", forms["v2"], *common, "--out", tmp_path / "d.npz")
    a, b = anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_h5ad(tmp_path / "b.h5ad")
    assert (a.X != b.X).nnz == 0 and list(a.obs_names) == list(b.obs_names) and list(a.var_names) == list(b.var_names)
    pd.testing.assert_frame_equal(a.obs, b.obs)
    np.testing.assert_array_equal(a.obsm["X_langcell"], b.obsm["X_langcell"])
    with gzip.open(tmp_path / "c.tsv.gz", "rt") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    assert [r["cell"] for r in rows] == list(a.obs_names)
    assert [r["langcell_label"] for r in rows] == list(a.obs["langcell_label"])
    assert [np.float32(r["langcell_score"]) for r in rows] == list(a.obs["langcell_score"])
    assert [r["langcell_unassigned"] for r in rows] == [str(x) for x in a.obs["langcell_unassigned"]]
    d = np.load(tmp_path / "d.npz")
    assert list(d["obs_names"]) == list(a.obs_names) and list(d["label"]) == list(a.obs["langcell_label"])
    np.testing.assert_array_equal(d["X"], a.obsm["X_langcell"])
    np.testing.assert_array_equal(d["scores"], a.obsm["langcell_scores"])
    np.testing.assert_array_equal(d["unassigned"], a.obs["langcell_unassigned"])


def test_embeddings_alone(langcell, forms, model, tmp_path):
    langcell("embed", forms["mtx v2"], "--model", model / "model", "--cls", "--out", tmp_path / "e.npz", "--quiet")
    e = np.load(tmp_path / "e.npz")
    assert set(e) == {"obs_names", "X", "X_cls", "about"} and e["X"].shape[0] == CELLS and e["X_cls"].shape[0] == CELLS
    assert "h5ad or .npz" in langcell("embed", forms["v3"], "--model", model / "model", "--out", tmp_path / "e.tsv", code=2).stderr


def test_options_of_the_other_kind_of_file_are_refused(langcell, forms, tmp_path):
    assert "--layer is for .h5ad" in langcell("vocab", "--from", forms["v3"], "--layer", "X", "--out", tmp_path / "v", code=2).stderr
    assert "are for files of 10x" in langcell("vocab", "--from", forms["h5ad"], "--min-counts", 5, "--out", tmp_path / "v", code=2).stderr
    shutil.rmtree(tmp_path)


def test_symbols_of_a_folder_are_looked_up(langcell, data, forms, tmp_path):
    counts, barcodes, ids, names = data
    vocabulary = tmp_path / "genes.tsv"
    langcell("vocab", "--from", forms["v3"], "--out", vocabulary)
    bare = write_folder(tmp_path / "m", counts, barcodes, names, names)
    assert "--gene-names" in langcell("tokenize", bare, "--genes", vocabulary, "--out", tmp_path / "a.h5", code=3).stderr
    langcell("tokenize", bare, "--genes", vocabulary, "--gene-names", "--out", tmp_path / "a.h5")
    langcell("tokenize", forms["v3"], "--genes", vocabulary, "--out", tmp_path / "b.h5")
    for a, b in zip(tokens_of(tmp_path / "a.h5"), tokens_of(tmp_path / "b.h5")):
        assert np.array_equal(a, b)
    assert scipy.io.mmread(bare / "matrix.mtx.gz").shape == (GENES, CELLS)


def test_mouse_genes_by_their_orthologs_give_the_tokens_of_the_human_ones(langcell, forms, data, tmp_path):
    counts, barcodes, ids, names = data
    mouse = [f"ENSMUSG{i:011}" for i in range(GENES)]
    write_v3(tmp_path / "mouse.h5", counts, barcodes, mouse, names)
    (tmp_path / "orthologs.tsv").write_text("mouse\thuman\n" + "".join(f"{m}\t{h}\n" for m, h in zip(mouse, ids)))
    langcell("vocab", "--from", forms["h5ad"], "--out", tmp_path / "genes.tsv")
    tokens = ["tokenize", "--genes", tmp_path / "genes.tsv"]
    langcell(*tokens, forms["v3"], "--out", tmp_path / "human.h5")
    error = langcell(*tokens, tmp_path / "mouse.h5", "--out", tmp_path / "m.h5", code=3).stderr
    assert "mouse" in error and "--orthologs" in error
    langcell(*tokens, tmp_path / "mouse.h5", "--orthologs", tmp_path / "orthologs.tsv", "--out", tmp_path / "m.h5")
    assert all(np.array_equal(a, b) for a, b in zip(tokens_of(tmp_path / "m.h5"), tokens_of(tmp_path / "human.h5")))
    with h5py.File(tmp_path / "m.h5") as f:
        assert "not validated" in f["inputs/counts"].asstr()[0]
