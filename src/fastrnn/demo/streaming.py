"""The held-out years one sample at a time: same bits as the batch? And how fast?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .._arguments import Array
from ..layers import LSTM
from .forecaster import Forecaster

ROUNDS = 20  # the best of so many: others use the machine too


class NumpyLSTM:
    """The equations in NumPy, float32, one step a call: what one would write without a library."""

    def __init__(self, lstm: LSTM) -> None:
        weights = lstm.state_dict()
        self.w = np.hstack([weights["weight_ih_l0"], weights["weight_hh_l0"]])  # [4H, I + H]
        self.b = weights["bias_ih_l0"] + weights["bias_hh_l0"]
        self.h = np.zeros(lstm.hidden_size, np.float32)
        self.c = np.zeros(lstm.hidden_size, np.float32)

    def step(self, x: Array) -> Array:
        """Return h after x [I]."""
        z = self.w @ np.concatenate([x, self.h]) + self.b
        i, f, g, o = z.reshape(4, -1)
        self.c = _sigmoid(f) * self.c + _sigmoid(i) * np.tanh(g)
        self.h = _sigmoid(o) * np.tanh(self.c)
        return self.h


def _sigmoid(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


@dataclass(frozen=True)
class Streamed:
    """What streaming showed."""

    steps: int
    differing: int  # steps whose state or forecast differs from the batch's in any bit
    microseconds: float  # a step
    numpy_microseconds: float
    numpy_error: float  # largest difference between the two


def stream_years(forecaster: Forecaster, inputs: Array, first: int) -> Streamed:
    """Stream inputs[first:], the memory taken over from what came before, and time it."""
    lstm, head = forecaster.lstm, forecaster.head
    batch, _ = lstm(inputs)
    forecasts = head(batch)
    _, (h, c) = lstm(inputs[:first])
    samples = inputs[first:]
    stream = lstm.stream()
    stream.state = h[:, None], c[:, None]
    out = np.empty(lstm.hidden_size, np.float32)
    differing = 0
    for sample, expected_h, expected in zip(samples, batch[first:], forecasts[first:], strict=True):
        stream.step(sample, out)
        same = out.tobytes() == expected_h.tobytes()
        differing += not (same and head(out).tobytes() == expected.tobytes())

    loop = NumpyLSTM(lstm)
    loop.h, loop.c = h[0], c[0]
    error = max(
        float(np.abs(loop.step(sample) - expected).max())
        for sample, expected in zip(samples, batch[first:], strict=True)
    )
    return Streamed(
        steps=len(samples),
        differing=differing,
        microseconds=_best(lambda sample: stream.step(sample, out), samples),
        numpy_microseconds=_best(loop.step, samples),
        numpy_error=error,
    )


def _best(step: Callable[[Array], object], samples: Array) -> float:
    """Return microseconds a step, Python's loop included, in the best of ROUNDS passes."""
    rows, best = list(samples), float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for row in rows:
            step(row)
        best = min(best, time.perf_counter() - start)
    return 1e6 * best / len(rows)
