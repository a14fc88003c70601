"""Text ids: the published tokenizer's on 100 strings, and an independent computation on every assigned code point of planes 0 and 1."""

import json

import word_piece_reference as reference


def test_every_assigned_code_point_alone_and_inside_a_word(langcell, tmp_path):
    texts = reference.code_point_texts()
    vocabulary = reference.vocabulary_of_characters(texts)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    langcell("simulate", "--out", tmp_path / "a.h5ad", "--texts", tmp_path / "t.json", "--cells", 20, "--genes", 300, "--types", 2)
    langcell(
        "train",
        tmp_path / "a.h5ad",
        "--texts",
        tmp_path / "t.json",
        "--label-key",
        "cell_type",
        "--out",
        tmp_path / "model",
        "--preset",
        "tiny",
        "--steps",
        1,
        "--quiet",
        "--set",
        "train.batch_size=4",
        "--set",
        "data.max_text_tokens=512",
        "--set",
        f'model.text_vocab="{tmp_path / "vocab.txt"}"',
    )
    (tmp_path / "texts.json").write_text(json.dumps({f"{i:04d}": text for i, text in enumerate(texts)}))
    said = {
        t["label"]: t["ids"][0]
        for t in json.loads(langcell("tokenize", "--model", tmp_path / "model", "--texts", tmp_path / "texts.json", "--json").stdout)[
            "texts"
        ]
    }
    assert len(said) == len(texts) > 2500
    wrong = [i for i, text in enumerate(texts) if said[f"{i:04d}"] != reference.encode(text, vocabulary)]
    assert not wrong, [text for i, text in enumerate(texts) if i in wrong[:3]]


def test_the_reference_gives_the_published_ids(shared):
    vocabulary = {line: i for i, line in enumerate(shared("golden/tiny/model/vocab.txt").read_text(encoding="utf-8").split("\n")) if line}
    cases = json.loads(shared("golden/wordpiece.json").read_text())
    for case in cases["cases"]:
        if not case.get("has_special"):
            assert reference.encode(case["text"], vocabulary)[:511] == case["ids"][:511], case["text"][:60]
