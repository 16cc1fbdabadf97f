"""fastrnn itself, through its public face."""

from __future__ import annotations

from functools import partial

import numpy as np

import fastrnn
from bench.libraries import Prepared, fastest
from bench.problem import Arrays, Problem

LAYERS = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}
Layer = fastrnn.LSTM | fastrnn.GRU | fastrnn.RNN


def prepare(problem: Problem) -> Prepared:
    case = problem.case
    layer = LAYERS[case.cell](
        case.inputs, case.H, num_layers=case.layers, bidirectional=case.bidirectional,
        dtype=case.dtype, num_threads=case.threads,
    )  # fmt: skip
    layer.load_state_dict(problem.weights)
    if case.stream:
        return fastest((_stream(layer, problem, n) for n in range(1, case.threads + 1)), case.pause)
    return _training(layer, problem) if case.training else _inference(layer, problem)


def _stream(layer: Layer, problem: Problem, threads: int) -> Prepared:
    stream = layer.stream(num_threads=threads)
    x = problem.x[:, 0]
    out = np.empty(problem.case.H, x.dtype)

    def result() -> Arrays:
        stream.reset()
        return {"y": np.stack([stream.step(x_t) for x_t in x])[:, None]}

    return Prepared(partial(stream.step, x[0], out), result, f"threads={threads}")


def _inference(layer: Layer, problem: Problem) -> Prepared:
    layer.eval()
    run = partial(layer, problem.x, lengths=problem.lengths)

    def result() -> Arrays:
        y, state = run()
        h, c = state if problem.case.cell == "lstm" else (state, None)
        return {"y": y, "h": h} | ({} if c is None else {"c": c})

    return Prepared(run, result)


def _training(layer: Layer, problem: Problem) -> Prepared:
    repack = problem.case.group != "torch"  # there, neither of the two ways in packs

    def run() -> tuple[np.ndarray, fastrnn.Gradients]:
        if repack:
            with layer.edit():  # an optimizer has changed the weights: packing them anew is timed
                pass
        y, _, tape = layer.forward(problem.x, lengths=problem.lengths)
        return y, layer.backward(tape, problem.dy)

    def result() -> Arrays:
        y, g = run()
        return {"y": y, "dx": g.input, **g.weights}

    return Prepared(run, result)
