"""PyTorch's own kernels on the shapes of `bench/kernels --device cuda --bf16`: attention and layer norm, forward and forward + backward.

usage: torch_kernels.py [--json FILE]      wants a CUDA device
"""

import argparse
import json

import torch
import torch.nn.functional as F

ATTENTION = {  # case → sequences, tokens, heads, head width, dropout
    "self, 8 × 512 tokens": (8, 512, 4, 64, 0.0),
    "self, 16 × 1024 tokens, 8 heads": (16, 1024, 8, 64, 0.0),
    "self, 8 × 2048 tokens, 8 heads": (8, 2048, 8, 64, 0.0),
    "self, 8 × 2048 tokens, 8 heads, dropout": (8, 2048, 8, 64, 0.02),
}
NORM = {"layer norm, 16384 × 512": (16384, 512)}


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    options = parser.parse_args()
    rows = []
    for name, (batch, tokens, heads, width, dropout) in ATTENTION.items():
        inputs = [torch.randn(batch, heads, tokens, width, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
        forward, both = both_ways(lambda q, k, v, p=dropout: F.scaled_dot_product_attention(q, k, v, dropout_p=p), inputs)
        flops = 4 * batch * heads * tokens**2 * width
        rows.append({"word": "attention", "case": name, "forward_s": forward, "forward_backward_s": both, "gflops": flops / forward / 1e9})
    for name, (count, columns) in NORM.items():
        inputs = [torch.randn(count, columns, device="cuda", dtype=torch.bfloat16)]
        inputs += [torch.randn(columns, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
        forward, both = both_ways(lambda x, w, b, c=columns: F.layer_norm(x, (c,), w, b), inputs)
        rows.append({"word": "norm", "case": name, "forward_s": forward, "forward_backward_s": both})
    for row in rows:
        print(f"{row['word']:<10} {row['case']:<44} forward {row['forward_s'] * 1e6:8.1f} us, with backward {row['forward_backward_s'] * 1e6:8.1f} us")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"peer": f"torch {torch.__version__}", "device": torch.cuda.get_device_name(), "cases": rows}, file, indent=1)


if __name__ == "__main__":
    main()
