"""A plain loop over time in NumPy: what one writes without a library. Inference only."""

from __future__ import annotations

import numpy as np

from bench.libraries import Prepared
from bench.problem import Arrays, Problem

State = tuple[np.ndarray, ...]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm(wx: np.ndarray, uh: np.ndarray, state: State) -> State:
    i, f, g, o = np.split(wx + uh, 4, axis=-1)
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(wx: np.ndarray, uh: np.ndarray, state: State) -> State:
    (wr, wz, wn), (ur, uz, un) = np.split(wx, 3, axis=-1), np.split(uh, 3, axis=-1)
    z = sigmoid(wz + uz)
    n = np.tanh(wn + sigmoid(wr + ur) * un)
    return ((1 - z) * n + z * state[0],)


def rnn(wx: np.ndarray, uh: np.ndarray, state: State) -> State:
    return (np.tanh(wx + uh),)


CELLS = {"lstm": lstm, "gru": gru, "rnn": rnn}


def direction(problem: Problem, x: np.ndarray, end: str) -> tuple[np.ndarray, State]:
    """One layer in one direction: y [T, B, H] and the final state, each [B, H]."""
    case, cell = problem.case, CELLS[problem.case.cell]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w, u, bw, bu = (problem.weights[f"{name}_{end}"] for name in names)
    wx = x @ w.T + bw
    y = np.zeros((*x.shape[:2], case.H), x.dtype)
    state: State = (np.zeros_like(y[0]),) * (2 if case.cell == "lstm" else 1)
    lengths = np.full(case.B, len(x)) if problem.lengths is None else problem.lengths
    for t in range(len(x))[:: -1 if end.endswith("reverse") else 1]:
        live = (t < lengths)[:, None]
        new = cell(wx[t], state[0] @ u.T + bu, state)
        state = tuple(np.where(live, n, s) for n, s in zip(new, state, strict=True))
        y[t] = np.where(live, state[0], 0)
    return y, state


def prepare(problem: Problem) -> Prepared:
    case = problem.case

    def run(x: np.ndarray = problem.x) -> tuple[np.ndarray, list[State]]:
        finals = []
        for layer in range(case.layers):
            ends = (f"l{layer}{end}" for end in ("", "_reverse")[: case.directions])
            ys, states = zip(*(direction(problem, x, end) for end in ends), strict=True)
            x = np.concatenate(ys, axis=-1)
            finals += states
        return x, finals

    def result() -> Arrays:
        y, finals = run()
        if case.stream:
            return {"y": y}
        parts = zip("hc", zip(*finals, strict=True), strict=False)
        return {"y": y} | {name: np.stack(part) for name, part in parts}

    # A stream's step is one turn of the same loop; its weights are as cold or as hot as the loop's.
    step = problem.x[:1]
    return Prepared((lambda: run(step)) if case.stream else run, result)
