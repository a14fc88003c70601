"""PyTorch on the cells of a corpus: forward and backward of the cell tower, one JSON line per run, beside bench/step.

usage: torch_step.py CORPUS.h5 [--form eager|sdpa] [--preset small|langcell] [--tokens 512] [--dropout 0.02] [--forward] [--device cuda --bf16] …
  eager   as the published code runs: random batches padded to their longest cell, q, k, v as three products, the whole score matrix
  sdpa    PyTorch's best: cells grouped by length, one q-k-v product, scaled_dot_product_attention, a mask only where something is padded
Both see the same cells; --compile gives either to torch.compile. On the CPU, attention dropout costs sdpa its fused path; that is PyTorch's, not this file's.
"""

import argparse
import json
import resource
import time

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

PRESETS = {"small": (4, 256, 4, 512), "langcell": (12, 512, 8, 1024)}  # layers, width, heads, FFN


class Layer(nn.Module):
    """BERT, post-LN. `form` changes how attention is computed, not what."""

    def __init__(self, width, heads, ffn, dropout, form):
        super().__init__()
        self.heads, self.dropout, self.form = heads, dropout, form
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3)) if form == "eager" else (None, None, None)
        self.qkv = nn.Linear(width, 3 * width) if form == "sdpa" else None
        self.out, self.norm_attention = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down, self.norm_ffn = nn.Linear(width, ffn), nn.Linear(ffn, width), nn.LayerNorm(width, eps=1e-12)

    def drop(self, x):
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def attention(self, x, mask):
        batch, length, width = x.shape

        def split(y):
            return y.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        if self.form == "sdpa":
            q, k, v = (split(part) for part in self.qkv(x).chunk(3, dim=-1))
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        else:
            q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
            scores = q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5
            mixed = self.drop(torch.softmax(scores if mask is None else scores + mask, dim=-1)) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    def forward(self, x, mask):
        x = self.norm_attention(x + self.drop(self.attention(x, mask)))
        return self.norm_ffn(x + self.drop(self.down(F.relu(self.up(x)))))


class CellTower(nn.Module):
    def __init__(self, preset, vocabulary, dropout, form):
        super().__init__()
        layers, width, heads, ffn = PRESETS[preset]
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(2048, width)
        self.token_type = nn.Parameter(torch.zeros(width))
        self.norm, self.dropout = nn.LayerNorm(width, eps=1e-12), dropout
        self.layers = nn.ModuleList(Layer(width, heads, ffn, dropout, form) for _ in range(layers))
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, 0, 0.02 if isinstance(module, nn.Embedding) else module.in_features**-0.5)

    def forward(self, ids, mask):
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]] + self.token_type)
        x = F.dropout(x, self.dropout, self.training) if self.dropout else x
        for layer in self.layers:
            x = layer(x, mask)
        return x


def read_cells(path, count, longest, seed):
    """`count` cells spread evenly over the lengths of the corpus, <cls> first, cut; the size of the vocabulary."""
    with h5py.File(path) as corpus:
        offsets, tokens = corpus["offsets"][:].astype(np.int64), corpus["tokens"]
        vocabulary = int(corpus["genes/token_id"][:].max()) + 2
        by_length = np.argsort(np.diff(offsets), kind="stable")
        by_length = by_length[np.diff(offsets)[by_length] > 0]
        chosen = by_length[((np.arange(count) + 0.5) * len(by_length) / count).astype(int)]
        cells = [np.concatenate([[vocabulary - 1], tokens[offsets[c] : offsets[c + 1]].astype(np.int64)])[:longest] for c in chosen]
    order = np.random.default_rng(seed).permutation(count)
    return [cells[i] for i in order], vocabulary


def make_batches(cells, size, width, form):
    """(ids, additive mask or None, random upstream gradient, zero where padded) per batch."""
    if form == "sdpa":
        cells = sorted(cells, key=len)
    generator = torch.Generator().manual_seed(3)
    batches = []
    for begin in range(0, len(cells), size):
        group = cells[begin : begin + size]
        ids = torch.zeros(len(group), max(map(len, group)), dtype=torch.long)
        real = torch.zeros(ids.shape, dtype=torch.bool)
        for row, cell in enumerate(group):
            ids[row, : len(cell)] = torch.from_numpy(cell)
            real[row, : len(cell)] = True
        mask = None if form == "sdpa" and bool(real.all()) else (~real)[:, None, None, :].float() * torch.finfo(torch.float32).min
        batches.append((ids, mask, torch.randn(*ids.shape, width, generator=generator) * real[..., None]))
    return batches


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def run(tower, batches, forward_only, device="cpu"):
    """Seconds for one pass over all batches."""
    wait(device)
    begin = time.perf_counter()
    for ids, mask, upstream in batches:
        if forward_only:
            with torch.inference_mode():
                tower(ids, mask)
        else:
            tower(ids, mask).backward(upstream)
            tower.zero_grad(set_to_none=True)
    wait(device)
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--form", choices=("eager", "sdpa"), default="sdpa")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--tokens", type=int, default=512, help="longest cell, <cls> included")
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.0, help="hidden and attention; the model trains with 0.02")
    parser.add_argument("--forward", action="store_true", help="no backward")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="weights and activations in bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile, for any length")
    parser.add_argument("--json", help="write the line to a file too")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(options.seed)
    cells, vocabulary = read_cells(options.corpus, options.cells, options.tokens, options.seed)
    tower = CellTower(options.preset, vocabulary, options.dropout, options.form).train(not options.forward)
    kind = torch.bfloat16 if options.bf16 else torch.float32
    tower = tower.to(options.device, kind)
    batches = [
        (ids.to(options.device), None if mask is None else mask.clamp(min=-1e30).to(options.device, kind), upstream.to(options.device, kind))
        for ids, mask, upstream in make_batches(cells, options.batch, PRESETS[options.preset][1], options.form)
    ]
    compiled = torch.compile(tower, dynamic=True) if options.compile else tower
    run(compiled, batches if options.device == "cuda" else batches[-1:], options.forward, options.device)
    seconds = [run(compiled, batches, options.forward, options.device) for _ in range(options.repeats)]
    real, padded = sum(map(len, cells)), sum(ids.numel() for ids, _, _ in batches)
    where = {"threads": options.threads} if options.device == "cpu" else {"device": torch.cuda.get_device_name(), "bf16": options.bf16}
    host_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = json.dumps(
        {
            "peer": f"torch {torch.__version__} {options.form}{' compiled' if options.compile else ''}",
            "preset": options.preset,
            "tokens": options.tokens,
            "cells": options.cells,
            "batch": options.batch,
            "dropout": options.dropout,
            "direction": "forward" if options.forward else "forward+backward",
            **where,
            "cells_per_s": round(options.cells / min(seconds), 2),
            "best_s": round(min(seconds), 4),
            "median_s": round(float(np.median(seconds)), 4),
            "repeats": options.repeats,
            "real_tokens": real,
            "padding": round(padded / real, 3),
            "peak_bytes": host_bytes if options.device == "cpu" else torch.cuda.max_memory_allocated(),
        }
    )
    print(line)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
