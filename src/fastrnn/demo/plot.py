"""Forecast against truth: a PNG where matplotlib is installed, else characters."""

from __future__ import annotations

import math

import numpy as np

from .._arguments import Array

_COLUMNS, _LINES = 78, 16


def draw(dates: Array, truth: Array, forecast: Array, title: str, out: str) -> str:
    """Write the picture to `out`, or return it as text; either way, return what to print.

    Args:
        dates: datetime64[D], [N].
        truth: parts per million, [N], NaN where not measured.
        forecast: parts per million, [N].
        title: what is shown.
        out: name of the PNG file.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return f"{title} (matplotlib is not installed)\n{_as_text(truth, forecast)}"
    # Figure without pyplot: no display is looked for, no global state is left behind.
    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(dates, truth, color="black", linewidth=1.0, label="measured")
    axes.plot(dates, forecast, color="tab:red", linewidth=1.2, label="LSTM forecast")
    axes.set_title(title)
    axes.set_ylabel("CO2 (ppm)")
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(out, format="png", dpi=120)
    except OSError as error:
        return f"cannot write {out} ({error.strerror})\n{_as_text(truth, forecast)}"
    return f"picture: {out}"


def _as_text(truth: Array, forecast: Array) -> str:
    """Return lines of characters: `o` measured, `x` forecast, `*` both."""
    low = math.floor(min(np.nanmin(truth), np.nanmin(forecast)))
    high = math.ceil(max(np.nanmax(truth), np.nanmax(forecast)))
    canvas = np.full((_LINES, _COLUMNS), " ")
    for values, mark in ((truth, "o"), (forecast, "x")):
        for column, index in enumerate(np.linspace(0, len(values) - 1, _COLUMNS).astype(int)):
            if not math.isnan(values[index]):
                line = round((high - values[index]) / (high - low) * (_LINES - 1))
                canvas[line, column] = mark if canvas[line, column] == " " else "*"
    labels = [f"{high - (high - low) * line / (_LINES - 1):7.1f} |" for line in range(_LINES)]
    rows = [label + "".join(row) for label, row in zip(labels, canvas, strict=True)]
    return "\n".join([*rows, "    ppm  o measured, x forecast, * both"])
