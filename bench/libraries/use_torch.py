"""PyTorch's own recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bench.libraries import Prepared, fastest
from bench.problem import Arrays, Problem

LAYERS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
CELLS = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}


Forward = Callable[[torch.Tensor], tuple]


def _packing(layer: torch.nn.RNNBase, lengths: torch.Tensor) -> Forward:
    """The layer on padded rows of these lengths: a function of x."""

    def forward(x: torch.Tensor) -> tuple:
        packed, state = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(packed, total_length=len(x))[0], state

    return forward


def prepare(
    problem: Problem, package: Any = torch.nn, ragged: Any = _packing, made: Any = None
) -> Prepared:
    """made(layer) is called when the layer has its weights."""
    case = problem.case
    torch.set_num_threads(case.threads)
    layer = getattr(package, LAYERS[case.cell])(
        case.inputs, case.H, case.layers, bidirectional=case.bidirectional,
        dtype=getattr(torch, case.dtype),
    )  # fmt: skip
    layer.load_state_dict({k: torch.from_numpy(w) for k, w in problem.weights.items()})
    if made:
        made(layer)
    if case.stream:
        ways = [_stream_layer(layer.eval(), problem), _stream_cell(problem)]
    elif case.training:
        ways = [_training(layer, problem, ragged)]
    else:
        ways = [_inference(layer.eval(), problem, ragged)]
    numbers = range(1, case.threads + 1)
    return fastest([_on_threads(way, n) for way in ways for n in numbers], case.pause)


def _on_threads(way: Prepared, n: int) -> Prepared:
    def run() -> object:
        if torch.get_num_threads() != n:
            torch.set_num_threads(n)
        return way.run()

    return replace(way, run=run, variant=f"{way.variant} threads={n}".strip())


def _forward(layer: torch.nn.RNNBase, problem: Problem, ragged: Any) -> Forward:
    return layer if problem.lengths is None else ragged(layer, torch.from_numpy(problem.lengths))


def _inference(layer: torch.nn.RNNBase, problem: Problem, ragged: Any) -> Prepared:
    x, forward = torch.from_numpy(problem.x), _forward(layer, problem, ragged)

    @torch.inference_mode()
    def run() -> tuple:
        return forward(x)

    def result() -> Arrays:
        y, state = run()
        states = zip("hc", state if isinstance(state, tuple) else (state,), strict=False)
        return {"y": y.numpy()} | {name: s.numpy() for name, s in states}

    return Prepared(run, result)


def _training(layer: torch.nn.RNNBase, problem: Problem, ragged: Any) -> Prepared:
    x, dy = torch.from_numpy(problem.x).requires_grad_(), torch.from_numpy(problem.dy)
    forward, names = (
        _forward(layer, problem, ragged),
        [name for name, _ in layer.named_parameters()],
    )
    wanted = [x, *layer.parameters()]

    def run() -> tuple:
        y, _ = forward(x)
        return y, torch.autograd.grad(y, wanted, dy)

    def result() -> Arrays:
        y, grads = run()
        return {"y": y.detach().numpy()} | {
            name: g.numpy() for name, g in zip(["dx", *names], grads, strict=True)
        }

    return Prepared(run, result)


def _stream(step: Callable, problem: Problem, variant: str) -> Prepared:
    """step(x [1, I], state) gives (y, state); a state of None is zeros."""
    x, state = torch.from_numpy(problem.x), None
    first = x[0]

    @torch.inference_mode()
    def run(x_t: torch.Tensor = first) -> torch.Tensor:
        nonlocal state
        y, state = step(x_t, state)
        return y

    def result() -> Arrays:
        nonlocal state
        state = None
        return {"y": torch.stack([run(x_t) for x_t in x]).numpy()}

    return Prepared(run, result, variant)


def _stream_layer(layer: torch.nn.RNNBase, problem: Problem) -> Prepared:
    # the only row is taken for an unbatched sequence of length 1
    return _stream(layer, problem, "layer")


def _stream_cell(problem: Problem) -> Prepared:
    case = problem.case
    cell = CELLS[case.cell](case.inputs, case.H).eval()
    weights = problem.weights.items()
    cell.load_state_dict({k.removesuffix("_l0"): torch.from_numpy(w) for k, w in weights})

    def step(x: torch.Tensor, state: object) -> tuple:
        state = cell(x, state)
        return (state[0] if case.cell == "lstm" else state), state

    return _stream(step, problem, "cell")
