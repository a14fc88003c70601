"""The arrays of golden/tiny (.npz) as one safetensors file, called "tokens/cell_tokens", "losses/mgm/loss", …

usage: convert_golden.py GOLDEN_TINY OUT.safetensors      needs numpy, nothing else; an OUT newer than this script is kept.
"""

import fcntl
import json
import struct
import sys
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


def convert_arrays(source, out):
    arrays = {}
    for file in sorted(source.glob("*.npz")):
        with np.load(file) as values:
            arrays.update({f"{file.stem}/{name}": values[name] for name in values.files})
    write_safetensors(out, arrays)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, out = (Path(argument) for argument in sys.argv[1:])
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{out}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run side by side convert once
        if out.exists() and out.stat().st_mtime > Path(__file__).stat().st_mtime:
            return
        partial = Path(f"{out}.partial")
        convert_arrays(source, partial)
        partial.rename(out)


if __name__ == "__main__":
    main()
