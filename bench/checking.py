"""Nothing is timed before the libraries agree."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from bench.cases import Case
from bench.libraries import Prepared, available, prepare
from bench.problem import Arrays, make

# Relative to the largest value of an array, or to 1 where all are smaller.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def difference(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return float("inf")
    worst = np.abs(a - b).max(initial=0) / max(1.0, np.abs(a).max(initial=0))
    return float(worst) if np.isfinite(worst) else float("inf")


def agree(case: Case, results: dict[str, Arrays]) -> float:
    """The largest difference between any two libraries; an AssertionError names them."""
    worst = 0.0
    for (first, a), (second, b) in combinations(results.items(), 2):
        assert a.keys() == b.keys(), f"{case.name}: {first} gives {set(a)}, {second} {set(b)}"
        for name in a:
            error = difference(a[name], b[name])
            assert error <= TOLERANCE[case.dtype], (
                f"{case.name}: {first} and {second} differ in {name} by {error:.3g}"
            )
            worst = max(worst, error)
    return worst


def prepare_all(case: Case) -> dict[str, Prepared]:
    """Every installed library of the case, ready to be timed and checked against the others."""
    problem = make(case)
    installed = available()
    ready = {name: prepare(name, problem) for name in case.peers if name in installed}
    agree(case, {name: library.result() for name, library in ready.items()})
    return ready
