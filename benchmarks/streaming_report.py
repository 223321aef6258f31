"""The table and the plot of ``streaming_quality`` in ``benchmarks/README.md``.

python -m benchmarks.streaming_report results.jsonl     # from lines that were kept
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.streaming_quality import NAME

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
PLOT = FOLDER / f"{NAME}.svg"
BEGIN, END = f"<!-- {NAME}: begin -->", f"<!-- {NAME}: end -->"

COLUMNS = (
    ("word errors", "word error rate", "{:.1f} %"),
    ("above offline", "word error rate above offline", "{:+.1f}"),
    ("shown after (mean)", "first appearance mean", "{:.2f} s"),
    ("final after (mean)", "final mean", "{:.2f} s"),
    ("p50", "final p50", "{:.2f}"),
    ("p95", "final p95", "{:.2f}"),
    ("with computing (mean)", "final mean, computing", "{:.2f} s"),
    ("p95", "final p95, computing", "{:.2f}"),
    ("times off (p50)", "word start off p50", "{:.0f} ms"),
    ("p90", "word start off p90", "{:.0f} ms"),
    ("unstable", "unstable", "{:.0f} %"),
    ("passes/s", "decoder passes", "{:.1f}"),
    ("real-time factor", "real-time factor", "{:.2f}"),
)
"""Head, metric, and how it is written."""

COLOURS = {"window": "tab:blue", "local-agreement": "tab:orange", "alignatt": "tab:green"}

LEAST = 0.1
"""Seconds; the plot shows no less."""

Rows = dict[tuple[str, str], dict[str, float]]
"""(case, rival or "") -> metric -> value."""


def rows_of(lines: Iterable[Mapping[str, Any]], kind: str = "all") -> Rows:
    """The figures of the set ``kind``, in the order in which they came."""
    rows: Rows = defaultdict(dict)
    for line in lines:
        if line["benchmark"] == NAME and line.get("set") == kind:
            rows[line["case"], line.get("rival", "")][line["metric"]] = line["value"]
    return dict(rows)


def table(rows: Rows) -> str:
    """The figures in Markdown."""
    head = ["case", *(title for title, _, _ in COLUMNS)]
    text = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for (case, rival), figures in rows.items():
        name = f"{rival}: {case}" if rival else case
        cells = [
            "" if figures.get(metric) is None else form.format(figures[metric])
            for _, metric, form in COLUMNS
        ]
        text.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(text)


def about(lines: Sequence[Mapping[str, Any]]) -> str:
    """A sentence that says what was played where."""
    line = next(line for line in lines if line["case"] == "calls")
    sets = sorted({one["set"] for one in lines if one.get("set", "all") != "all"})
    return (
        f"{line['calls']} calls, {line['value']:.0f} s in all ({', '.join(sets)}); model "
        f"`{line['model']}`, voice activity by {line['voice']}; {line['threads']} thread(s) of "
        f"{line['processor']}, {line['cores']} cores."
    )


def draw(rows: Rows, path: Path) -> None:
    """Errors over latency: a numbered point per case at the mean, a line to the 95th percentile."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = NAME  # the same figures give the same file
    figure, axes = pyplot.subplots(figsize=(11, 5.5), constrained_layout=True)
    number = 0
    for (case, rival), figures in rows.items():
        y = figures.get("word error rate")
        if y is None:
            continue
        if figures.get("final mean") is None:
            style = "--" if "," in case else ":"
            axes.axhline(y, color="grey", linestyle=style, linewidth=1, label=case)
            continue
        number += 1
        colour = next((c for name, c in COLOURS.items() if case.startswith(name)), "black")
        x, end = (max(figures[metric], LEAST) for metric in ("final mean", "final p95"))
        name = f"{rival}: {case}" if rival else case
        axes.plot([x, end], [y, y], color=colour, linewidth=1, alpha=0.4)
        axes.plot([x], [y], "X" if rival else "o", color=colour, ms=9, label=f"{number}  {name}")
        axes.annotate(str(number), (x, y), xytext=(0, 7), textcoords="offset points", ha="center",
                      fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("seconds from the end of a word to its final: mean, and line to 95 % of them")
    axes.set_ylabel("word error rate (%)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def write(lines: Sequence[Mapping[str, Any]], *, readme: Path = README, plot: Path = PLOT) -> None:
    """Put the table between its marks in ``readme``, and the plot beside it.

    Raises:
        ValueError: there are no figures, or the marks are not there.
    """
    rows = rows_of(lines)
    text = readme.read_text("utf-8")
    if not rows or BEGIN not in text or END not in text:
        raise ValueError(f"no figures, or {readme} has no {BEGIN} and {END}")
    draw(rows, plot)
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    parts = [BEGIN, about(lines), "", table(rows), "", f"![Errors over latency]({plot.name})", END]
    readme.write_text(before + "\n".join(parts) + after, "utf-8")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as kept:
        write([json.loads(line) for line in kept if line.startswith("{")])
