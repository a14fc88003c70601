"""Golden data as our own formats: golden/tiny/model (torch pickles) to a model folder, its .npz arrays to golden.safetensors.

usage: convert_golden.py GOLDEN_TINY GENES.tsv OUT      needs numpy, nothing else; an OUT newer than this script is kept.
OUT/model/…, OUT/golden.safetensors with arrays called "tokens/cell_tokens", "losses/mgm/loss", …
"""
import fcntl
import json
import pickle
import shutil
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

STORED = {"float64": "F64", "float32": "F32", "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL"}


def write_safetensors(path, arrays):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # every array begins at a multiple of its item size
    for name in names:
        array = arrays[name]
        header[name] = {"dtype": STORED[str(array.dtype)], "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(arrays[name].tobytes())


class TorchPickle(pickle.Unpickler):
    """Knows the four names a file of plain tensors uses; anything else is refused."""

    STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}

    def __init__(self, archive):
        self.archive = archive
        self.top = next(name for name in archive.namelist() if name.endswith("data.pkl"))[: -len("data.pkl")]
        super().__init__(archive.open(self.top + "data.pkl"))

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.rebuild
        if module == "torch" and name in self.STORAGES:
            return self.STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place among tensors")

    def persistent_load(self, reference):
        kind, dtype, key, _device, count = reference
        assert kind == "storage", reference
        storage = np.frombuffer(self.archive.read(f"{self.top}data/{key}"), dtype=dtype)
        assert storage.size == count, reference
        return storage

    @staticmethod
    def rebuild(storage, offset, shape, strides, *_):
        strides = [step * storage.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides).copy()


def read_torch(path):
    with zipfile.ZipFile(path) as archive:
        return dict(TorchPickle(archive).load())


def convert_model(source, genes, out):
    """The layout of a model folder; poolers and the position_ids buffer are left out, as the model does not use them."""
    for tower in ("cell_bert", "text_bert"):
        (out / tower).mkdir(parents=True)
        shutil.copyfile(source / "model" / tower / "config.json", out / tower / "config.json")
        tensors = read_torch(source / "model" / tower / "pytorch_model.bin")
        kept = {name: t for name, t in tensors.items() if not name.startswith("pooler.") and not name.endswith("position_ids")}
        write_safetensors(out / tower / "model.safetensors", kept)
    for head in ("cell_proj", "text_proj", "ctm_head"):
        write_safetensors(out / f"{head}.safetensors", read_torch(source / "model" / f"{head}.bin"))
    losses = np.load(source / "losses.npz")
    mgm = {name.removeprefix("mgm_head/"): losses[name] for name in losses.files if name.startswith("mgm_head/")}
    write_safetensors(out / "mgm_head.safetensors", mgm)
    shutil.copyfile(source / "model" / "vocab.txt", out / "text_bert" / "vocab.txt")
    shutil.copyfile(genes, out / "genes.tsv")
    config = {"preset": "tiny", "max_cell_tokens": 2048, "max_text_tokens": 512}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def convert_arrays(source, out):
    arrays = {}
    for file in sorted(source.glob("*.npz")):
        with np.load(file) as values:
            arrays.update({f"{file.stem}/{name}": values[name] for name in values.files})
    write_safetensors(out, arrays)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    source, genes, out = (Path(argument) for argument in sys.argv[1:])
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{out}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run side by side convert once
        if out.exists() and out.stat().st_mtime > Path(__file__).stat().st_mtime:
            return
        partial = Path(f"{out}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        convert_model(source, genes, partial / "model")
        convert_arrays(source, partial / "golden.safetensors")
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)


if __name__ == "__main__":
    main()
