"""docs/performance.md from the rows of results.json."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from bench import pool, scaling
from bench.cases import TABLE
from bench.libraries import NAMES
from bench.measure import Row
from bench.native import RTNEURAL, TARGET
from bench.timing import NOISY

UNSTEADY = 1.4  # the slowest round over the fastest, from which a time is marked
DISPUTED = 0.15  # between a ratio and that of the times beside it, from which it is marked

TITLES = {
    "stream": "One step with the memory carried along (T = 1, B = 1)",
    "sequence": "One sequence (B = 1)",
    "rows": "One step of many rows (T = 1)",
    "single": "One training step (T = 1)",
    "batch": "Batches",
    "training": "Training: forward, and the gradients of the input and of every weight",
    "halved": "Weights that are bfloat16 (B = 1)",
    "pauses": "Now and then: one call every 30 ms",
}
TEXTS = {
    "halved": """\
After `fastrnn.convert.to_bfloat16`: the same rounded values for all, in float32, and results that
agree as everywhere. We read them in half the bytes, and so does the floor. Without rounding, the
same sizes are in the first two tables.
""",
    "single": """\
Forward, and the gradients of the input and of every weight, after each of which an optimizer has
changed the weights. Our floor reads them twice and writes their gradients once.
""",
    "pauses": """\
As with frames of speech or a control loop: the pause is not counted, but threads have fallen asleep
in it and caches have gone cold. All libraries choose their settings (one thread or two, spinning or
not) by such calls.
""",
}
SELF_TITLES = {
    "odd": (
        "Odd sizes",
        "Time for each useful flop of the next multiple of 16, over that of the odd size.",
    ),
    "denormals": (
        "Denormal values",
        "Time of 2,000 steps on ordinary values over that on denormals; 1: values do not matter.",
    ),
    "threads": ("Threads", "Time on one thread over time on two."),
}
TORCH_TITLE = "Inside PyTorch"
TORCH_TEXT = """\
`fastrnn.torch` as a module, inputs and results being tensors, beside torch's own layer (ratio), and
what a call costs beyond the same kernels called with NumPy (over; in parentheses the most we
promised). It contains torch's own share, which is most of it: allocating results, in training the
autograd engine; and reading all weights once a pass, to see whether they are still those that are
packed. In this table the weights do not change, so nobody packs them. A single step of few rows is
spared that look: it multiplies with torch's weights where they lie, forward in up to twice the time
of packed ones. Within `fixed_weights` (fixed) nobody looks, and weights are packed. Ragged batches
are given to our modules as they are, with `lengths`; torch's layer needs a `PackedSequence`, and
its time contains packing and padding.
"""
HOW = """\
A ratio is the time of the best peer (torch, ONNX Runtime or OpenVINO) over ours in the same
process, the median over the rounds; in parentheses the least we promised, and an asterisk where it
is missed. The fastest time of a row is bold, whoever's it is. Share: the floor `max(flops / peak,
weight bytes / bandwidth of the level they fit in)` over our time. It can exceed 100 %: weights
larger than a cache are all counted at the bandwidth of the level behind it, but what is left of
them in the cache from the step before is read faster.

{rounds}

All libraries got the same weights, at most two threads and whatever setting served them best, and
their results agreed (float32: 1e-5, float64: 1e-10) before anything was timed. `bench/timing.py`
says how they are kept from disturbing each other, `bench/libraries/` what each was given,
`bench/roofline.py` what the floor contains. In training our weights count as changed at every step:
packing them anew is in the time. A dash: the library cannot do it, is not installed, or came later.
Rows may be of several runs (`--update`); within a row all libraries were timed in turn.
"""


def page(results: dict[str, Any]) -> str:
    rows = results["rows"]
    parts = ["# Performance\n", "Written by `python -m bench`; do not edit.\n"]
    how = HOW.replace("{rounds}", _rounds(rows))
    parts += [_machine(results["machine"], results["limits"]), "## How to read the tables\n", how]
    for group, title in TITLES.items():
        found = [row for row in rows if row["group"] == group]
        if found:
            parts += [f"## {title}\n", *filter(None, [TEXTS.get(group)]), _peers(found)]
    for group, (title, text) in SELF_TITLES.items():
        found = [row for row in rows if row["group"] == group]
        if found:
            parts += [f"## {title}\n", text + "\n", _beside(found)]
    if results.get("scaling"):
        parts += ["## Where more cores stop paying\n", scaling.section(results["scaling"])]
    inside = [row for row in rows if row["group"] == "torch"]
    if inside:
        parts += [f"## {TORCH_TITLE}\n", TORCH_TEXT, _inside_torch(inside)]
    if results.get("native"):
        parts += ["## One step from C++\n", _native(results["native"])]
    if results.get("pool"):
        parts += ["## Many streams at once\n", pool.section(results["pool"])]
    if results["memory"]:
        parts += ["## Memory of a training step\n", _memory(results["memory"])]
    noisy = [row["case"] for row in rows if row["others"] > NOISY]
    if noisy:
        names = ", ".join(noisy)
        text = "Others had some of the cores while these were timed, measure again: "
        parts += [f"{text}{names}.\n"]
    fixed = [row["case"] for row in rows if _threads_not_tried(row)]
    if fixed:
        text = "when torch had two threads in all but calls every 30 ms, whatever served it best"
        parts += [f"{len(fixed)} of the rows were timed {text}.\n"]
    missing = [case.name for case in TABLE if case.name not in {row["case"] for row in rows}]
    if 0 < len(missing) < len(rows):  # else it is no page of a machine, but of some cases
        text = "Newer than this page, and not measured on this machine: "
        parts += [f"{text}{', '.join(missing)}.\n"]
    return "\n".join(parts)


def _threads_not_tried(row: Row) -> bool:
    """Whether torch takes part with a number of threads that it had no choice of."""
    chosen = row.get("settings", {}).get("torch", {}).get("chosen", "")
    return "best" in row and "torch" in row["median"] and "threads=" not in chosen


def table(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _machine(machine: dict[str, Any], limits: dict[str, float]) -> str:
    lines = [f"- {key}: {value}" for key, value in machine.items()]
    rates = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in limits.items())
    lines.append(f"- measured limits, GFLOP/s and GB/s: {rates}")
    return "\n".join(lines) + "\n"


def _rounds(rows: list[Row]) -> str:
    """How many rounds a median is of, and what the mark of unsteady() means."""
    found = sorted({len(seconds) for row in rows for seconds in row["seconds"].values()})
    if not found:
        return ""
    number = " or ".join(map(str, found))
    return (
        f"A time is the median of {number} round{'' if found == [1] else 's'}. A dagger (†): the "
        f"slowest round of fastrnn's took more than\n{UNSTEADY} times the fastest. A double dagger "
        f"(‡): the rounds disagreed, the ratio is more than {100 * DISPUTED:.0f} %\nfrom "
        "that of the median times."
    )


def unsteady(row: Row, name: str = "fastrnn") -> str:
    """The mark behind a time whose rounds are far apart."""
    seconds = row["seconds"].get(name)
    return "†" if seconds and max(seconds) > UNSTEADY * min(seconds) else ""


def disputed(row: Row, slow: str, fast: str = "fastrnn") -> str:
    """The mark behind a ratio, the median of the rounds', that the median times do not have."""
    over, under = row["seconds"].get(slow), row["seconds"].get(fast)
    if not over or not under:
        return ""
    rounds = median(a / b for a, b in zip(over, under, strict=True))
    apart = rounds * median(under) / median(over)
    return "" if abs(apart - 1) <= DISPUTED else "‡"


def short(seconds: float | None) -> str:
    """Microseconds with three digits."""
    if seconds is None:
        return "–"
    micro = seconds * 1e6
    return f"{micro:,.{max(0, 3 - len(str(int(micro))))}f}"


def against(value: float | None, target: float, unit: str = "", mark: str = "") -> str:
    """The value and its mark, its target, and an asterisk where it falls short."""
    if value is None:
        return "–"
    scale, digits = (100, 0) if unit == "%" else (1, 2)
    text = f"{value * scale:.{digits}f}{unit}{mark}"
    if unit == "%" and round(value, 2) > 1:
        text = "> 100%"  # how much more means nothing: bench/roofline.py says why
    if not target:
        return text
    return f"{text} ({target * scale:.{digits}f}{unit}){'' if value >= target else ' *'}"


def label(case: str) -> str:
    """Without the group, which the title says."""
    return case.split("-", 1)[1].replace("-", " ").replace("lstm", "LSTM").replace(
        "gru", "GRU").replace("rnn", "RNN")  # fmt: skip


def times(seconds: dict[str, float], libraries: list[str], mark: str = "") -> list[str]:
    """The fastest in bold; `mark` behind ours."""
    fastest = min(seconds, key=seconds.__getitem__)
    found = [
        f"**{short(seconds.get(n))}**" if n == fastest else short(seconds.get(n)) for n in libraries
    ]
    return [text + mark * (n == "fastrnn") for n, text in zip(libraries, found, strict=True)]


def _peers(rows: list[Row]) -> str:
    libraries = [name for name in NAMES if any(name in row["median"] for row in rows)]
    head = ["microseconds", *libraries, "best peer", "ratio", "share"]
    body = (
        [
            label(row["case"]),
            *times(row["median"], libraries, unsteady(row)),
            row.get("best", "–"),
            against(row.get("ratio"), row["target"], mark=disputed(row, row.get("best", ""))),
            against(row.get("share"), row["target_share"], "%"),
        ]
        for row in rows
    )
    return table(head, body)


def _beside(rows: list[Row]) -> str:
    peers = [name for name in NAMES[1:] if any(name in row["ratios"] for row in rows)]
    head = ["microseconds", "fastrnn", "beside", "ratio", *peers]
    body = (
        [
            label(row["case"]),
            short(row["median"].get("fastrnn")) + unsteady(row),
            short(row["median"].get("fastrnn beside")) + unsteady(row, "fastrnn beside"),
            against(row.get("ratio"), row["target"], mark=disputed(row, "fastrnn beside")),
            *(
                against(row["ratios"].get(name), 0, mark=disputed(row, f"{name} beside", name))
                for name in peers
            ),
        ]
        for row in rows
    )
    return table(head, body)


def _native(rows: list[Row]) -> str:
    clock, isa = rows[0]["clock_ns"], rows[0]["isa"]
    text = (
        "LSTM, float32, one thread, through the public C++ API (`bench/cpp/step.cpp`), kernels\n"
        f"for {isa}. Mean: a run of steps over its time, the best of seven runs, which is how\n"
        "RTNeural measures. One step: between two readings of the clock, less the\n"
        f"{clock:.0f} ns these cost. Block: 64 steps between two readings, over 64. RTNeural: as\n"
        "published for layers whose sizes are known when compiled, on a machine of its own.\n\n"
    )
    head = ["nanoseconds", "mean", "at most", "one step p50", "p99", "block p50", "p99", "RTNeural"]
    times = ("p50_ns", "p99_ns", "block_p50_ns", "block_p99_ns")
    body = []
    for row in rows:
        size = (row["input"], row["hidden"])
        mean, most = row["mean_ns"], TARGET[size]
        body.append(
            [
                f"LSTM I{size[0]} H{size[1]}",
                f"{mean:,.0f}{'' if mean < most else ' *'}",
                f"{most:,}",
                *(f"{row[name]:,.0f}" for name in times),
                f"{RTNEURAL[size]:,}",
            ]
        )
    return text + table(head, body)


def _inside_torch(rows: list[Row]) -> str:
    head = ["microseconds", "fastrnn", "fastrnn.torch", "over", "fixed", "torch", "ratio"]
    ours, body = "fastrnn.torch", []
    for row in rows:
        times, most = row["median"], row.get("target_overhead")
        over = row.get("overhead")
        text = "–" if over is None else f"{over:.1f}" + (f" ({most:.0f})" if most else "")
        late = bool(most) and over is not None and over > most
        body.append(
            [
                label(row["case"]),
                short(times.get("fastrnn")) + unsteady(row),
                short(times.get(ours)) + unsteady(row, ours),
                text + (" *" if late else ""),
                short(times.get(f"{ours} fixed")),
                short(times.get("torch")),
                against(row.get("ratio"), row["target"], mark=disputed(row, "torch", ours)),
            ]
        )
    return table(head, body)


def _memory(rows: list[Row]) -> str:
    text = (
        "Growth of the peak resident memory over one step (output, tape and gradients), each\n"
        "library in a process of its own, and the same divided by T * B * H.\n\n"
    )
    head = ["case", "library", "MiB", "bytes per step and unit"]
    body = (
        [label(r["case"]), r["library"], f"{r['bytes'] / 2**20:.1f}", f"{r['each']:.1f}"]
        for r in rows
    )
    return text + table(head, body)
