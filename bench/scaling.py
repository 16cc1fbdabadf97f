"""Where more cores stop paying, by the model that chooses the split (`src/cpp/plan/plan.cpp`).

Nothing is run: this machine need not have the cores. The model knows each core's arithmetic and
caches and a barrier a step whose cost grows with the threads that meet. It does not know that cores
share a last-level cache and the memory behind it, so large layers at B = 1 do worse than it says.
"""

from __future__ import annotations

from typing import Any

import fastrnn

THREADS = (1, 2, 4, 8, 16, 32)
CASES = (
    (1, 64),
    (1, 128),
    (1, 256),
    (1, 512),
    (1, 1024),
    (4, 256),
    (16, 256),
    (64, 256),
    (64, 512),
)
LETTERS = {"none": "", "rows": " r", "units": " u", "pipeline": " p"}
WORTH = 1.1  # a doubling that gains less does not pay

TEXT = """\
LSTM T = 100, I = H, inference, microseconds by the model with which `layer.explain()` answers. They
are not measured: the model's core has 3.5 GHz (`src/cpp/plan/step_model.cpp`) and rough figures
for its caches, so only their ratios mean something. What this machine took on one thread and on two
stands in the tables above.

In italics what another doubling gains less than 10 % on. r: each thread has its own rows; u: its
own units, with a barrier a step; p: two threads, one of which multiplies the inputs ahead of the
other. With one row the barrier is soon all there is: cores pay up to where a core's part of the
weights fits its second-level cache. With many rows they pay as long as each has a few tiles of them
(six rows) to work on. The model does not know that cores share a last-level cache and memory: at
B = 1, H = 1024 it promises too much.
"""


def measure() -> list[dict[str, Any]]:
    rows = []
    for batch, hidden in CASES:
        layer = fastrnn.LSTM(hidden, hidden, seed=0)
        times, splits = [], []
        for threads in THREADS:
            layer.num_threads = threads
            plan = layer.explain(100, batch)
            times.append(plan["expected_us"])
            splits.append(plan["layers"][0]["split"])
        rows.append({"batch": batch, "hidden": hidden, "us": times, "split": splits})
    return rows


def section(rows: list[dict[str, Any]]) -> str:
    from bench.report import short, table

    head = ["threads", *map(str, THREADS)]
    body = []
    for row in rows:
        last = enough(row["us"])
        cells = []
        for i, (us, split) in enumerate(zip(row["us"], row["split"], strict=True)):
            text = short(us * 1e-6) + LETTERS[split]
            cells.append(f"*{text}*" if i == last else text)
        body.append([f"LSTM T100 B{row['batch']} H{row['hidden']}", *cells])
    return TEXT + "\n" + table(head, body)


def enough(times: list[float]) -> int:
    """The first place from which no later one is worth its doublings."""
    for i, time in enumerate(times):
        if all(time / later < WORTH ** (n + 1) for n, later in enumerate(times[i + 1 :])):
            return i
    return len(times) - 1
