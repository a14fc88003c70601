"""Others' kernels on the shapes of `bench/kernels --device cuda --bf16`, forward and forward + backward: PyTorch's flash attention, cuDNN's fused
attention, layer norm, cross-entropy over a vocabulary with whole logits, and a sort of the genes of cells (CUB's radix sort).

usage: torch_kernels.py [--json FILE] [--vs cudnn|torch]      wants a CUDA device
"""

import argparse
import itertools
import json

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, WIDTH = 8, 64
ATTENTION = {  # case → sequences, tokens, heads, dropout
    "self, 8 × 512 tokens": (8, 512, 4, 0.0),
    "self, 8 × 2048 tokens, 8 heads, dropout": (8, 2048, HEADS, 0.02),
} | {f"self, {16384 // n} × {n} tokens, 8 heads": (16384 // n, n, HEADS, 0.0) for n in (256, 512, 1024, 2048, 4096, 8192)}
NORM = {"langcell: 64 cells of 1024, LayerNorm alone": (65536, 512)}
CROSS_ENTROPY = {  # rows, width, vocabulary
    "small, masked genes of 16 cells of 256": (600, 256, 25427),
    "langcell, masked genes of 16 cells of 2048": (4912, 512, 25427),
}
SORT = {"256 cells": (256, 1333), "4,096 cells": (4096, 1333)}  # cells, genes of each on average
BACKENDS = {"torch flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}


def seconds(run, at_once=20, times=15):
    """Median over several timings of many runs."""
    run()
    found = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(at_once):
            run()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1e3 / at_once)
    return sorted(found)[len(found) // 2]


def both_ways(forward, inputs):
    with torch.no_grad():
        once = seconds(lambda: forward(*inputs))
    leaves = [x.detach().requires_grad_() for x in inputs]
    upstream = torch.randn_like(forward(*inputs))

    def step():
        torch.autograd.grad(forward(*leaves), leaves, upstream)

    return once, seconds(step)


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def attention():
    for name, (batch, tokens, heads, dropout) in ATTENTION.items():
        inputs = [random(batch, heads, tokens, WIDTH) for _ in range(3)]
        flops = 4 * batch * heads * tokens**2 * WIDTH
        for peer, backend in BACKENDS.items():
            try:
                with sdpa_kernel(backend):
                    forward, both = both_ways(lambda q, k, v, p=dropout: F.scaled_dot_product_attention(q, k, v, dropout_p=p), inputs)
            except RuntimeError as error:  # this backend does not take the case
                print(f"attention  {name:<44} {peer}: {str(error).splitlines()[0]}")
                continue
            yield {"word": "attention", "case": name, "peer": peer, "forward_s": forward, "forward_backward_s": both, "gflops": flops / forward / 1e9}


def the_rest():
    for name, (count, columns) in NORM.items():
        forward, both = both_ways(lambda x, w, b, c=columns: F.layer_norm(x, (c,), w, b), [random(count, columns), random(columns), random(columns)])
        yield {"word": "norm", "case": name, "peer": "torch", "forward_s": forward, "forward_backward_s": both}
    for name, (count, columns, vocabulary) in CROSS_ENTROPY.items():
        labels = torch.randint(vocabulary, (count,), device="cuda")
        forward, both = both_ways(lambda x, table, y=labels: F.cross_entropy(x @ table.T, y, reduction="sum"), [random(count, columns), random(vocabulary, columns)])
        yield {"word": "cross_entropy", "case": name, "peer": "torch", "forward_s": forward, "forward_backward_s": both}
    for name, (cells, genes) in SORT.items():
        values = torch.rand(cells, genes, device="cuda", dtype=torch.float64)
        yield {"word": "rank_encoding", "case": name, "peer": "torch.sort (CUB), the sort alone", "forward_s": seconds(lambda v=values: torch.sort(v, descending=True))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    parser.add_argument("--vs", choices=("cudnn", "torch"), help="cuDNN's attention alone, or all that is not cuDNN's")
    options = parser.parse_args()
    rows = []
    for row in itertools.chain(attention(), the_rest()):
        if options.vs and (row["peer"] == "cudnn") != (options.vs == "cudnn"):
            continue
        rows.append(row)
        both = f", with backward {row['forward_backward_s'] * 1e6:8.1f} us" if "forward_backward_s" in row else ""
        print(f"{row['word']:<14} {row['case']:<44} {row['peer']:<12} forward {row['forward_s'] * 1e6:8.1f} us{both}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"peer": f"torch {torch.__version__}", "device": torch.cuda.get_device_name(), "cases": rows}, file, indent=1)


if __name__ == "__main__":
    main()
