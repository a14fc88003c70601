"""A LangCell bundle of the published sizes with random weights (172 million parameters), as torch.save would write it.

usage: make_bundle.py OUT --vocab vocab.txt [--seed 0]      needs numpy, no torch
"""

import argparse
import json
import struct
import zipfile
from pathlib import Path

import numpy as np

CELL = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.02,
    "attention_probs_dropout_prob": 0.02,
    "max_position_embeddings": 2048,
    "type_vocab_size": 2,
    "vocab_size": 25427,
    "layer_norm_eps": 1e-12,
}
TEXT = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "add_cross_attention": True,
    "encoder_width": 512,
}


def tower(config):
    width, ffn, cross = config["hidden_size"], config["intermediate_size"], config.get("encoder_width")
    yield "embeddings.word_embeddings.weight", (config["vocab_size"], width)
    yield "embeddings.position_embeddings.weight", (config["max_position_embeddings"], width)
    if not cross:
        yield "embeddings.token_type_embeddings.weight", (2, width)
    yield from norm("embeddings.LayerNorm", width)
    for layer in range(config["num_hidden_layers"]):
        top = f"encoder.layer.{layer}"
        for block, source in (("attention", width), ("crossattention", cross)):
            if source:
                yield from linear(f"{top}.{block}.self.query", width, width)
                yield from linear(f"{top}.{block}.self.key", source, width)
                yield from linear(f"{top}.{block}.self.value", source, width)
                yield from linear(f"{top}.{block}.output.dense", width, width)
                yield from norm(f"{top}.{block}.output.LayerNorm", width)
        yield from linear(f"{top}.intermediate.dense", width, ffn)
        yield from linear(f"{top}.output.dense", ffn, width)
        yield from norm(f"{top}.output.LayerNorm", width)
    yield from linear("pooler.dense", width, width)


def linear(name, inputs, outputs):
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def norm(name, width):
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


class StateDict:
    """The pickle of a state dict, opcode by opcode: torch's globals by name, storages as persistent ids."""

    def __init__(self):
        self.bytes = b"\x80\x02ccollections\nOrderedDict\n)R("

    @staticmethod
    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    @staticmethod
    def integer(value):
        return b"J" + struct.pack("<i", value)

    def add(self, name, shape, key):
        strides = [int(np.prod(shape[i + 1 :], dtype=np.int64)) for i in range(len(shape))]
        sizes = [b"(" + b"".join(map(self.integer, values)) + b"t" for values in (shape, strides)]
        storage = (
            b"("
            + self.text("storage")
            + b"ctorch\nFloatStorage\n"
            + self.text(str(key))
            + self.text("cpu")
            + self.integer(int(np.prod(shape)))
            + b"tQ"
        )
        self.bytes += (
            self.text(name)
            + b"ctorch._utils\n_rebuild_tensor_v2\n("
            + storage
            + self.integer(0)
            + sizes[0]
            + sizes[1]
            + b"\x89ccollections\nOrderedDict\n)RtR"
        )

    def finish(self):
        return self.bytes + b"u."


def save(path, tensors, draw):
    path.parent.mkdir(parents=True, exist_ok=True)
    state, total = StateDict(), 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, (name, shape) in enumerate(tensors):
            state.add(name, shape, key)
            one = name.endswith("LayerNorm.weight")
            values = draw.standard_normal(shape, dtype=np.float32) * np.float32(0.02) + np.float32(one)
            archive.writestr(f"{path.stem}/data/{key}", values.tobytes())
            total += values.size
        archive.writestr(f"{path.stem}/data.pkl", state.finish())
        archive.writestr(f"{path.stem}/version", "3\n")
    return total


def make(out, vocab, seed=0):
    """The number of parameters written."""
    draw, out = np.random.default_rng(seed), Path(out)
    text = {**TEXT, "vocab_size": len(Path(vocab).read_text(encoding="utf-8").splitlines())}
    total = 0
    for folder, config in (("cell_bert", CELL), ("text_bert", text)):
        total += save(out / folder / "pytorch_model.bin", tower(config), draw)
        (out / folder / "config.json").write_text(json.dumps({"model_type": "bert", **config}, indent=2))
    for head, inputs, outputs in (("cell_proj", 512, 256), ("text_proj", 768, 256), ("ctm_head", 768, 2)):
        total += save(out / f"{head}.bin", [("weight", (outputs, inputs)), ("bias", (outputs,))], draw)
    (out / "vocab.txt").write_bytes(Path(vocab).read_bytes())
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{make(options.out, options.vocab, options.seed):,} parameters in {options.out}")
