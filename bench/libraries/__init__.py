"""One file a library, one interface: `prepare(problem)` gives the call to time and its results.

Every library gets the same weights, works on arrays it already owns (no conversion is timed) and
runs with the settings that serve it best; where those depend on the machine, `fastest` tries them:
numbers of threads among others, as torch's GRU of one row trains 1.6 times as fast on one as on two
(H128, Zen 4). Our layers have a plan of their own.
A stream carries its state from call to call; everything else starts from zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib import import_module, metadata
from importlib.util import find_spec
from statistics import median
from time import perf_counter, sleep

from bench.problem import Arrays, Problem

NAMES = (
    "fastrnn", "fastrnn.torch", "fastrnn.torch fixed", "numpy", "torch", "onnxruntime", "openvino",
    "jax",
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """result() computes afresh: y, h and c; in training y, dx and a gradient for each weight."""

    run: Callable[[], object]
    result: Callable[[], Arrays]
    variant: str = ""  # the setting that won, where there was a choice
    tried: dict[str, float] = field(default_factory=dict)  # seconds of a call, by setting


def available() -> dict[str, str]:
    """Installed libraries and their versions."""
    found = {}
    for name in NAMES:
        packages = name.split()[0].split(".")  # fastrnn.torch needs both
        if all(find_spec(package) for package in packages):
            found[name] = metadata.version(packages[0])
    return found


def prepare(name: str, problem: Problem) -> Prepared:
    file = name.replace(".", "_").replace(" ", "_")
    adapter = import_module(f"bench.libraries.use_{file}")
    return adapter.prepare(problem)


def fastest(candidates: Iterable[Prepared], pause: float, rest: float = 0.05) -> Prepared:
    """The candidate with the shortest usual call, each tried briefly in two alternating turns.

    pause: seconds of sleep before each call.

    The median of a turn, not its least: a helper thread that is lucky once must not win.
    """
    tried = list(candidates)
    if len(tried) == 1:
        return tried[0]
    best = [float("inf")] * len(tried)
    for _ in range(2):
        for place, candidate in enumerate(tried):
            sleep(rest)  # spin-waits of the one before end here
            calls, until = [], perf_counter() + max(0.05, 20 * pause)
            while perf_counter() < until:
                if pause:
                    sleep(pause)
                start = perf_counter()
                candidate.run()
                calls.append(perf_counter() - start)
            best[place] = min(best[place], median(calls))
    seconds = {candidate.variant: s for candidate, s in zip(tried, best, strict=True)}
    return replace(tried[best.index(min(best))], tried=seconds)
