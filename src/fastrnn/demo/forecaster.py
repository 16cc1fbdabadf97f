"""An LSTM with a linear readout, trained by truncated backpropagation through time."""

from __future__ import annotations

import math
import sys

import numpy as np

from .._arguments import Array
from .._linear import Linear
from ..layers import LSTM
from ..losses import mse
from ..optim import Adam, clip_grad_norm_
from .series import HORIZONS, YEAR, Task

HIDDEN = 32
ROWS = 8  # stretches of the record that are learned side by side
WINDOW = 52  # weeks that a gradient walks back; the state is carried on
RATE = 0.01
MAX_NORM = 1.0
SEED = 0


class Forecaster:
    """Sees one week after the other and says, each time, what change is to come."""

    def __init__(self, inputs: int, threads: int | None = None) -> None:
        self.lstm = LSTM(inputs, HIDDEN, seed=SEED, forget_bias=1.0, num_threads=threads)
        self.head = Linear(HIDDEN, len(HORIZONS), seed=SEED + 1, num_threads=threads)

    @property
    def modules(self) -> list[LSTM | Linear]:
        """Both layers, in the order of their gradients."""
        return [self.lstm, self.head]

    def __call__(self, inputs: Array) -> Array:
        """Return the forecasts [T, len(HORIZONS)] for inputs [T, I], from a state of zeros."""
        return self.head(self.lstm(inputs)[0])

    def train(self, task: Task, first_held_out: int, epochs: int) -> float:
        """Learn from targets that end before the held-out years; return the last epoch's loss."""
        # Input k is week k + YEAR of the record; the target farthest ahead must be known.
        end = first_held_out - YEAR - HORIZONS[-1]
        inputs, targets = _side_by_side(task.inputs[:end]), _side_by_side(task.targets[:end])
        optimizer = Adam(self.modules, lr=RATE)
        loss = math.nan
        for epoch in range(epochs):
            optimizer.lr = RATE * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            loss = self._epoch(inputs, targets, optimizer)
            _progress(epoch + 1, epochs, loss)
        return loss

    def _epoch(self, inputs: Array, targets: Array, optimizer: Adam) -> float:
        losses, state = [], None
        for start in range(0, len(inputs), WINDOW):
            window = slice(start, start + WINDOW)
            y, state, tape = self.lstm.forward(inputs[window], state)
            forecast, head_tape = self.head.forward(y)
            loss, gradient = mse(forecast, targets[window])
            of_head = self.head.backward(head_tape, gradient)
            of_lstm = self.lstm.backward(tape, of_head.input, input_grad=False)
            clip_grad_norm_([of_lstm, of_head], MAX_NORM)
            optimizer.step([of_lstm, of_head])
            losses.append(loss)
        return float(np.mean(losses))


def _side_by_side(weeks: Array) -> Array:
    """Cut [T, C] into consecutive stretches, less a few first weeks: [T / ROWS, ROWS, C]."""
    length = len(weeks) // ROWS
    rows = weeks[len(weeks) - ROWS * length :].reshape(ROWS, length, -1)
    return np.ascontiguousarray(rows.transpose(1, 0, 2))


def _progress(done: int, total: int, loss: float) -> None:
    """Draw the bar anew in its line; a file or a pipe gets nothing."""
    if sys.stdout.isatty():
        filled = 30 * done // total
        bar = "#" * filled + "." * (30 - filled)
        end = "\n" if done == total else ""
        print(f"\r  [{bar}] epoch {done}/{total}, loss {loss:.4f}", end=end, flush=True)
