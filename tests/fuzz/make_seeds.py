"""Small whole files of every kind the readers take, as a start for the fuzzer.

usage: make_seeds.py OUT      writes OUT/TARGET/*; needs Python alone
"""

import gzip
import json
import pickle
import struct
import sys
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path


def integer(value):
    return b"K" + bytes([value])


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def state_dict(storage=b"FloatStorage", prefix=""):
    body = b"\x80\x02ccollections\nOrderedDict\n)R("
    for key, (name, shape, strides) in enumerate([("w.weight", (2, 3), (3, 1)), ("w.bias", (3,), (1,))]):
        sizes = [b"(" + b"".join(map(integer, v)) + b"t" for v in (shape, strides)]
        place = b"(" + text("storage") + b"ctorch\n" + storage + b"\n" + text(str(key)) + text("cpu") + integer(6) + b"tQ"
        body += text(prefix + name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + integer(0) + sizes[0] + sizes[1] + b"\x89)tR"
    return body + b"u."


def torch_files(out):
    for number, storage in enumerate((b"FloatStorage", b"HalfStorage", b"BFloat16Storage", b"LongStorage")):
        with zipfile.ZipFile(out / f"{number}.bin", "w") as archive:
            archive.writestr("a/data.pkl", state_dict(storage, "bert." * (number % 2)))
            archive.writestr("a/byteorder", "little")
            for key in (0, 1):
                archive.writestr(f"a/data/{key}", bytes(48))
    with zipfile.ZipFile(out / "zip64.bin", "w") as archive, archive.open("a/data.pkl", "w", force_zip64=True) as member:
        member.write(state_dict())


def safetensors(out):
    for number, (kind, size) in enumerate((("F32", 4), ("BF16", 2), ("F16", 2), ("I64", 8))):
        header = json.dumps(
            {"__metadata__": {"format": "pt"}, "w": {"dtype": kind, "shape": [2, 3], "data_offsets": [0, 6 * size]}}
        ).encode()
        header += b" " * (-len(header) % 8)
        (out / f"{number}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(6 * size))


def geneformer_dictionaries(out):
    for protocol in (2, 4):
        (out / f"plain{protocol}.pkl").write_bytes(
            pickle.dumps({"<pad>": 0, "<mask>": 1, "ENSG00000000003": 2, "ENSG00000000005": 3}, protocol)
        )
        (out / f"median{protocol}.pkl").write_bytes(pickle.dumps(OrderedDict({"ENSG00000000003": 1.5}), protocol))
    scalar = b"\x80\x04}(\x8c\x05<pad>K\x00\x8c\x06<mask>K\x01\x8c\x0fENSG00000000003\x8c\x15numpy.core.multiarray\x8c\x06scalar\x93\x8c\x05numpy\x8c\x05dtype\x93"
    scalar += b"\x8c\x02i8\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbC\x08" + struct.pack("<q", 2) + b"\x86Ru."
    (out / "numpy.pkl").write_bytes(scalar)


def tower_config(out):
    values = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.02,
        "attention_probs_dropout_prob": 0.02,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "vocab_size": 100,
        "layer_norm_eps": 1e-12,
        "add_cross_attention": True,
        "encoder_width": 64,
    }
    (out / "config.json").write_text(json.dumps(values))


def matrix_market(out):
    (out / "a.mtx").write_text("%%MatrixMarket matrix coordinate integer general\n% a\n4 3 5\n1 1 3\n2 1 1\n4 2 7\n1 3 2\n3 3 1\n")
    (out / "b.mtx").write_text("%%MatrixMarket matrix coordinate real general\r\n2 2 2\r\n2 2 1.5\r\n1 1 1e3\r\n")
    (out / "c.mtx").write_bytes(gzip.compress((out / "a.mtx").read_bytes()))


def ontology(out):
    head = "format-version: 1.2\nontology: cl\n\n"
    term = '[Term]\nid: CL:0000236\nname: B cell\ndef: "A lymphocyte \\"of\\" B lineage." [GOC:add, ISBN:1]\n'
    term += 'synonym: "B lymphocyte" EXACT [MESH:D001402]\nsynonym: "B-cell" RELATED []\nis_a: CL:0000945 ! lymphocyte of B lineage\n'
    obsolete = "[Term]\nid: CL:0000001\nname: obsolete x\nis_obsolete: true\nreplaced_by: CL:0000236\n"
    (out / "cl.obo").write_text(head + term + "\n" + obsolete + "\n[Typedef]\nid: part_of\n")


def texts(out):
    (out / "a.json").write_text(json.dumps({"B": "a B cell", "T": ["a T cell", "another"], "N": {"text": "n", "ontology_id": "CL:1"}}))


def gene_vocabulary(out):
    rows = ["token_id\tensembl_id\tgene_name\tmedian", "0\t<pad>\t\t", "1\t<mask>\t\t", "2\tENSG00000000003\tTSPAN6\t1.5"]
    (out / "genes.tsv").write_text("\n".join(rows) + "\n")


def word_piece(out):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cell", "##s", "b", "t", "µ", "##µ", ".", "-"]
    (out / "vocab.txt").write_text("\n".join(pieces) + "\n\nB cells. T-cell, µµ \u0301e 中\n")


def reader_answers(out):
    number = lambda n: struct.pack("<Q", n)  # noqa: E731
    facts = b"\0" + number(16) + number(3) + number(5) + b"\1\0" + b"\1" + number(2048) + number(8) + number(2)
    facts += number(1) + struct.pack("<i", 1) + number(4) + struct.pack("<I", 4)
    rest = number(2) + number(1) + b"a" + number(2) + b"bc" + number(24) + bytes(24) + b"\1" + number(7)
    rest += struct.pack("<i", 4) + number(8) + number(9) + b"\0" + number(3) + b"abc"
    (out / "answer").write_bytes(facts + rest)


def chunks(out):
    values = struct.pack("<64f", *range(64))
    shuffled = b"".join(values[b::4] for b in range(4))
    (out / "gzip").write_bytes(bytes([0b000001, 4, 16]) + zlib.compress(values))
    (out / "shuffle_gzip").write_bytes(bytes([0b000110, 4, 16]) + zlib.compress(shuffled))
    (out / "lzf").write_bytes(bytes([0b000011, 4, 2]) + bytes([31]) + values[:32])
    (out / "plain").write_bytes(bytes([0, 4, 16]) + values)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    makers = (torch_files, safetensors, geneformer_dictionaries, tower_config, matrix_market, ontology, texts, gene_vocabulary, word_piece)
    for make in (*makers, reader_answers, chunks):
        folder = Path(sys.argv[1]) / {"torch_files": "torch_file"}.get(make.__name__, make.__name__)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
