"""Attention's speed over length beside the peers, as an SVG, from the summary.json of tools/gpu_check.sh.      usage: plot_attention.py SUMMARY.json OUT.svg"""

import json
import re
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 800, 400, 70, 630, 50, 350
COLOURS = {"langcell": "#c0392b", "langcell, portable": "#e59866", "torch flash": "#2471a3", "cudnn": "#1e8449"}


def length_of(case):
    """Tokens of `self, B × N tokens, 8 heads`, of 16,384 in all; None for other cases."""
    found = re.fullmatch(r"self, (\d+) × (\d+) tokens, 8 heads", case)
    return int(found[2]) if found and int(found[1]) * int(found[2]) == 16384 else None


def lines_of(summary):
    """(peer, direction) → [(tokens, TFLOP/s)]; backward counts five products, forward two."""
    lines = {}
    sources = [("langcell", summary["kernels"]), ("langcell, portable", summary.get("kernels-portable")), (None, summary.get("torch"))]
    for peer, source in sources:
        for row in (source or {"cases": []})["cases"]:
            tokens = length_of(row["case"]) if row["word"] == "attention" else None
            if tokens is None:
                continue
            flops = 4 * 16384 * tokens * 512
            backward = row["forward_backward_s"] - row["forward_s"]
            for direction, value in (("forward", flops / row["forward_s"]), ("backward", 2.5 * flops / backward)):
                lines.setdefault((peer or row["peer"], direction), []).append((tokens, value / 1e12))
    return {key: sorted(points) for key, points in lines.items()}


def draw(lines, title):
    lengths = sorted({tokens for points in lines.values() for tokens, _ in points})
    highest = 100 * (int(max(value for points in lines.values() for _, value in points)) // 100 + 1)
    x = {tokens: LEFT + (RIGHT - LEFT) * i / max(1, len(lengths) - 1) for i, tokens in enumerate(lengths)}

    def y(value):
        return BOTTOM - (BOTTOM - TOP) * value / highest

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">']
    out.append(f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="24" font-size="15">{title}</text>')
    for value in range(0, highest + 1, 100):
        out.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>')
    for tokens in lengths:
        out.append(f'<text x="{x[tokens]:.1f}" y="{BOTTOM + 20}" text-anchor="middle">{tokens}</text>')
    out.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 40}" text-anchor="middle">tokens of a sequence</text><text x="20" y="40">TFLOP/s</text>')
    for i, ((peer, direction), points) in enumerate(sorted(lines.items())):
        style = f'stroke="{COLOURS[peer]}" stroke-width="2"' + (' stroke-dasharray="6 4"' if direction == "backward" else "")
        out.append(f'<polyline points="{" ".join(f"{x[t]:.1f},{y(v):.1f}" for t, v in points)}" fill="none" {style}/>')
        out.extend(f'<circle cx="{x[t]:.1f}" cy="{y(v):.1f}" r="3" fill="{COLOURS[peer]}"/>' for t, v in points)
        out.append(f'<line x1="{RIGHT + 12}" x2="{RIGHT + 36}" y1="{60 + 20 * i}" y2="{60 + 20 * i}" {style}/>')
        out.append(f'<text x="{RIGHT + 42}" y="{64 + 20 * i}" font-size="11">{peer}, {direction}</text>')
    return "\n".join([*out, "</svg>", ""])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        summary = json.load(file)
    name = summary["device"].split(",")[0]
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(draw(lines_of(summary), f"Attention, bf16, heads 64 wide, no dropout: {name}, {summary['date']}"))


if __name__ == "__main__":
    main()
