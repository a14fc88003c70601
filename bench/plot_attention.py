#!/usr/bin/env python3
"""Attention's speed over the length of its sequences, ours and others', as one SVG.

usage: plot_attention.py RESULTS.json OUT.svg      RESULTS: gpu_check's summary.json, or a file of bench/results/ with peer_cases
A point for every case without dropout, by its sequence length; backward is the time of forward and backward less that of forward.
"""

import json
import re
import sys

COLOURS = {"langcell": "#c0392b", "torch flash": "#2c6fbb", "torch": "#2c6fbb", "cudnn": "#2e8b57"}
LEFT, TOP, WIDTH, HEIGHT, RIGHT, BOTTOM = 70, 50, 560, 300, 170, 50


def points(results):
    """(who, direction) → {tokens: TFLOP/s}"""
    if "kernels" in results:
        cases = [c | {"peer": "langcell"} for c in results["kernels"]["cases"]] + results.get("torch", {}).get("cases", [])
    else:
        cases = [c | {"peer": "langcell"} for c in results["cases"]] + [{"peer": "torch"} | c for c in results.get("peer_cases", [])]
    found = {}
    for case in cases:
        match = re.fullmatch(r"self, (?:\d+ × )?(\d+) tokens(?:, 8 heads)?", case["case"])
        if case["word"] != "attention" or not match:
            continue
        flops = case["gflops"] * case["forward_s"] / 1e3  # of forward, in units of 10^12
        backward = case["forward_backward_s"] - case["forward_s"]
        for direction, speed in (("forward", flops / case["forward_s"]), ("backward", 2.5 * flops / backward)):
            line = found.setdefault((case["peer"], direction), {})
            line[int(match[1])] = max(speed, line.get(int(match[1]), 0))
    return found


def drawing(lines, title):
    lengths = sorted({n for line in lines.values() for n in line})
    top = max(speed for line in lines.values() for speed in line.values())
    step = next(s for s in (25, 50, 100, 200, 400) if top / s <= 8)
    ceiling = step * (int(top / step) + 1)
    at_x = {n: LEFT + WIDTH * i / max(1, len(lengths) - 1) for i, n in enumerate(lengths)}

    def at_y(speed):
        return TOP + HEIGHT * (1 - speed / ceiling)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {TOP + HEIGHT + BOTTOM}" font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="24" font-size="15">{title}</text>',
    ]
    for speed in range(0, ceiling + 1, step):
        out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at_y(speed):.1f}" y2="{at_y(speed):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at_y(speed) + 4:.1f}" text-anchor="end">{speed}</text>')
    for n in lengths:
        out.append(f'<text x="{at_x[n]:.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle">{n}</text>')
    out.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 40}" text-anchor="middle">tokens of a sequence</text>')
    out.append(f'<text x="{LEFT - 50}" y="{TOP - 10}">TFLOP/s</text>')
    for row, ((who, direction), line) in enumerate(sorted(lines.items())):
        colour, dash = COLOURS.get(who, "#666"), "" if direction == "forward" else ' stroke-dasharray="6 4"'
        path = " ".join(f"{at_x[n]:.1f},{at_y(line[n]):.1f}" for n in sorted(line))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        out += [f'<circle cx="{at_x[n]:.1f}" cy="{at_y(line[n]):.1f}" r="3" fill="{colour}"/>' for n in line]
        y = TOP + 20 * row + 10
        out.append(f'<line x1="{LEFT + WIDTH + 12}" x2="{LEFT + WIDTH + 40}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{LEFT + WIDTH + 46}" y="{y + 4}">{who}, {direction}</text>')
    return "\n".join(out + ["</svg>", ""])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        results = json.load(file)
    lines = points(results)
    if not lines:
        sys.exit(f"plot_attention: {sys.argv[1]} has no attention case without dropout")
    device = results.get("device", "").split(",")[0]
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(drawing(lines, f"Attention, bf16, heads 64 wide, no dropout: {device}, {results.get('date', '')}"))


if __name__ == "__main__":
    main()
