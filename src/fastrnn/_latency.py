"""`python -m fastrnn latency`: how long a step takes, and how long it takes at worst."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .convert import to_bfloat16
from .layers import GRU, LSTM, RNN

CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
ROWS = 1024  # different samples, taken in turn
WARM_UP = 10_000  # steps that are not counted: caches fill, the clock rises, threads start
_PERCENTILES = (("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9))
_LINES, _BAR = 24, 50

Nanoseconds = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """Times of single steps, nothing subtracted, and what reading the clock takes of each."""

    name: str
    steps: Nanoseconds
    clock: Nanoseconds  # the same loop around nothing

    def summary(self) -> dict[str, float]:
        """Return p50, p99, p99.9 and max in nanoseconds."""
        found = {name: float(np.percentile(self.steps, p)) for name, p in _PERCENTILES}
        return found | {"max": float(self.steps.max())}


def measure(
    cell: str,
    input_size: int,
    hidden_size: int,
    *,
    layers: int = 1,
    batch: int = 1,
    threads: int = 1,
    dtype: str = "float32",
    bfloat16: bool = False,
    steps: int = 1_000_000,
) -> list[Measured]:
    """Time single steps of a stream: of its kernel alone, and of `Stream.step` in Python.

    With `bfloat16` the weights, of float32, are rounded to it.
    """
    layer = CELLS[cell](input_size, hidden_size, num_layers=layers, dtype=dtype, seed=0)
    if bfloat16:
        layer.load_state_dict(to_bfloat16(layer.state_dict()))
    stream = layer.stream(batch, num_threads=threads)
    x = np.random.default_rng(0).standard_normal((ROWS, batch, input_size)).astype(dtype)
    stream._step_times(x, WARM_UP)
    kernel = stream._step_times(x, steps)
    out = np.empty((batch, hidden_size), dtype)
    _python_times(stream, x, out, WARM_UP)
    python = _python_times(stream, x, out, steps)
    clock = _core.clock_times(min(steps, 100_000))
    return [
        Measured("kernel (C++)", kernel, clock),
        Measured("Stream.step (Python)", python, _python_clock(min(steps, 100_000))),
    ]


def _python_times(stream: _core.Stream, x: Any, out: Any, steps: int) -> Nanoseconds:
    rows, step, now = list(x), stream.step, time.perf_counter_ns
    times, count = np.empty(steps, np.int64), len(rows)
    view = times.data
    for i in range(steps):
        row = rows[i % count]
        start = now()
        step(row, out)
        view[i] = now() - start
    return times


def _python_clock(steps: int) -> Nanoseconds:
    now, times = time.perf_counter_ns, np.empty(steps, np.int64)
    view = times.data
    for i in range(steps):
        start = now()
        view[i] = now() - start
    return times


def report(title: str, found: list[Measured]) -> str:
    """Return the figures as text: a line each, then a histogram each."""
    names = [name for name, _ in _PERCENTILES] + ["max"]
    width = max(len(m.name) for m in found)
    lines = [title, "", f"{'nanoseconds':<{width}}" + "".join(f"{n:>12}" for n in names)]
    for m in found:
        values = m.summary()
        lines.append(f"{m.name:<{width}}" + "".join(f"{values[n]:>12,.0f}" for n in names))
    clocks = ", ".join(f"{m.name} {np.median(m.clock):,.0f}" for m in found)
    lines += ["", f"of which reading the clock, median, not subtracted: {clocks} ns"]
    for m in found:
        lines += ["", f"{m.name}: {len(m.steps):,} steps, bars grow with the logarithm"]
        lines += _histogram(m.steps)
    return "\n".join(lines)


def edges(steps: Nanoseconds, count: int) -> npt.NDArray[np.float64]:
    """Return borders of bins that grow by the same factor, from the least value to the largest."""
    low, high = max(1.0, float(steps.min())), float(steps.max()) + 1.0
    return np.geomspace(low, max(high, low * 1.1), count + 1)


def _histogram(steps: Nanoseconds) -> list[str]:
    borders = edges(np.maximum(steps, 1), _LINES)
    counts, _ = np.histogram(np.maximum(steps, 1), borders)
    most = math.log1p(int(counts.max()))
    return [
        f"{low:>12,.0f} ns |{'#' * math.ceil(_BAR * math.log1p(n) / most):<{_BAR}}| {n:,}"
        for low, n in zip(borders, counts.tolist(), strict=False)
    ]


def check_picture(out: str) -> None:
    """Raise what `draw` would: ValueError without matplotlib, OSError for no place to write to."""
    _matplotlib()
    before = os.path.lexists(out)
    with open(out, "ab"):
        pass
    if not before:
        os.unlink(out)


def _matplotlib() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("matplotlib is not installed; try pip install matplotlib") from None
    return FigureCanvasAgg, Figure


def draw(title: str, found: list[Measured], out: str) -> str:
    """Write a PNG of the histograms; return what to print. Needs matplotlib."""
    canvas, make_figure = _matplotlib()
    figure = make_figure(figsize=(10, 5), layout="constrained")
    canvas(figure)
    axes = figure.add_subplot()
    borders = edges(np.maximum(np.concatenate([m.steps for m in found]), 1), 200)
    for m, color in zip(found, ("black", "tab:red"), strict=False):
        axes.hist(np.maximum(m.steps, 1), borders, histtype="step", color=color, label=m.name)
        axes.axvline(m.summary()["p99.9"], color=color, linestyle=":", linewidth=1.0)
    axes.set(xscale="log", yscale="log", xlabel="ns (dotted: p99.9)", ylabel="steps", title=title)
    axes.legend()
    figure.savefig(out, format="png", dpi=120)
    return f"picture: {out}"
