"""python -m bench.sample: times shapes drawn at random against every peer, one line a shape.

The table of `bench/cases.py` has the sizes that people quote. Cliffs are between them: an odd size,
few steps, wide or narrow inputs, many layers. Each shape is timed briefly, so a ratio below 1 says
no more than that it is worth timing again: such shapes are, in more and longer rounds, at the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import takewhile
from random import Random
from statistics import median
from time import monotonic

from bench import roofline
from bench.cases import GATES, Case
from bench.libraries import available
from bench.measure import PEERS, Row, measure
from bench.timing import Plan

BRIEFLY = Plan(rounds=1, block=0.06, tries=2)
AGAIN = Plan(rounds=4, block=0.15, tries=3)
LEAST, MOST = 2e4, 6e9  # flops of a call

STEPS = (1, 2, 5, 10, 20, 50, 100, 300)
ROWS = (1, 1, 2, 3, 5, 8, 12, 16, 20, 32, 50, 64, 100)
HIDDEN = (8, 16, 24, 32, 48, 64, 80, 100, 128, 160, 200, 256, 300, 384, 512, 640)
INPUTS = (0, 1, 3, 13, 40, 80, 128, 161, 300)  # 0: as many as units
LAYERS = (1, 1, 1, 2, 3)


def drawn(seed: int, training: bool) -> Iterator[Case]:
    """Cases without end, the same for a seed."""
    random = Random(seed)
    while True:
        steps, rows = random.choice(STEPS), random.choice(ROWS)
        layers, bidirectional = random.choice(LAYERS), random.random() < 1 / 3
        ragged = random.random() < 1 / 6 and steps >= 10 and rows > 1
        # Where all three meet OpenVINO's answer is not that of the others.
        disputed = ragged and layers > 1 and bidirectional
        peers = PEERS[:1] if training else PEERS[:2] if disputed else PEERS
        case = Case(
            group="training" if training else "batch",
            cell=random.choice(("lstm", *GATES)),
            T=steps,
            B=rows,
            H=random.choice(HIDDEN),
            I=random.choice(INPUTS),
            layers=layers,
            bidirectional=bidirectional,
            ragged=ragged,
            training=training,
            libraries=("fastrnn", *peers),
        )
        if LEAST < roofline.flops(case, steps * rows) < MOST:
            yield case


def show(row: Row) -> None:
    times = "  ".join(f"{name} {1e6 * seconds:,.1f}" for name, seconds in row["median"].items())
    print(f"{row['ratio']:5.2f}  {100 * row['share']:3.0f}%  {row['case']}  {times}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sample", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300.0, help="of drawing; then again")
    parser.add_argument("--training", action="store_true")
    options = parser.parse_args(arguments)
    if not options.seconds > 0:
        parser.error(f"--seconds: expected a number > 0, got {options.seconds:g}")
    if "torch" not in available():
        parser.error("torch is not installed; try pip install '.[bench]'")
    limits, end = roofline.probe(), monotonic() + options.seconds
    print("ratio to the best peer, share of the limit, microseconds a call")
    found = []
    for case in takewhile(lambda _: monotonic() < end, drawn(options.seed, options.training)):
        found.append((case, measure(case, BRIEFLY, limits)))
        show(found[-1][1])
    slower = [case for case, row in found if row["ratio"] < 1]
    middle = median(row["ratio"] for _, row in found)
    print(f"\n{len(found)} shapes, median {middle:.2f}, below 1: {len(slower)}; these again")
    for case in slower:
        show(measure(case, AGAIN, limits))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
