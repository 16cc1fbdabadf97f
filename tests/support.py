"""What the tests share: a network as settings, random problems for it, measures of agreement.

The results of a network on a problem are a flat dict (y, h, c, dx, dh0, dc0, step_norms and a
gradient for each weight name), so that one comparison serves outputs and gradients of every cell.
"""

import copy
import importlib
import itertools
import pickle
import re
import threading
import tracemalloc
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np
import pytest

import reference
from fastrnn import _saving

# A new cell enters the tests by its place in the oracle.
CELLS = tuple(reference.CELLS)
LAYERS = tuple(dict.fromkeys(_saving._CLASSES.values()))  # RNN, LSTM, ...
KINDS = (*CELLS, "lstm_proj")
DTYPES = ("float32", "float64")

# [dtype]: error of outputs (absolute, as they are about 1), of gradients (of their largest)
OUTPUT_TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
GRADIENT_TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@dataclass(frozen=True)
class Net:
    cell: str  # one of CELLS
    inputs: int
    hidden: int
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    proj: int = 0
    dtype: str = "float32"

    @property
    def directions(self):
        return 1 + self.bidirectional

    @property
    def has_c(self):
        return reference.CELLS[self.cell].has_c

    @property
    def width(self):
        return self.proj or self.hidden

    def build(self, seed=1, **options):
        options |= dict(
            num_layers=self.layers,
            bidirectional=self.bidirectional,
            bias=self.bias,
            dtype=np.dtype(self.dtype).type,
            seed=seed,
        )
        if self.proj:
            options["proj_size"] = self.proj
        if self.cell.startswith("rnn_"):
            options["nonlinearity"] = self.cell[4:]
        return _saving._CLASSES[self.cell](self.inputs, self.hidden, **options)


def net_of(kind, inputs, hidden, **options):
    """lstm_proj is an LSTM that projects onto about half of its units"""
    if kind == "lstm_proj":
        return Net("lstm", inputs, hidden, proj=(hidden + 1) // 2, **options)
    return Net(kind, inputs, hidden, **options)


@dataclass(frozen=True)
class Problem:
    net: Net
    x: np.ndarray
    state: tuple | None
    lengths: np.ndarray | None
    dy: np.ndarray | None
    dstate: tuple | None

    def rows(self, rows):
        """the same problem for some of the batch rows"""

        def of_state(state):
            return state and tuple(s[:, rows].copy() for s in state)

        return replace(
            self,
            x=self.x[:, rows].copy(),
            state=of_state(self.state),
            lengths=None if self.lengths is None else self.lengths[rows],
            dy=self.dy[:, rows].copy(),
            dstate=of_state(self.dstate),
        )


def problem(net, steps, batch, lengths=None, seed=1):
    """lengths: None, an array, or "ragged" (any order, zero and the full length among them)"""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.standard_normal(shape).astype(net.dtype)

    def draw_state():
        rows = net.layers * net.directions
        h, c = draw(rows, batch, net.width), draw(rows, batch, net.hidden)
        return (h, c) if net.has_c else (h,)

    x, dy = draw(steps, batch, net.inputs), draw(steps, batch, net.directions * net.width)
    if isinstance(lengths, str):
        lengths = rng.integers(0, steps + 1, batch)
        lengths[: min(batch, 2)] = [0, steps][: min(batch, 2)]
        rng.shuffle(lengths)
    return Problem(net, x, draw_state(), lengths, dy, draw_state())


def packed(state):
    """as the public interface takes it: (h, c) of an LSTM, h of the others"""
    return state if state is None or len(state) == 2 else state[0]


def unpacked(state):
    return state if isinstance(state, tuple) else (state,)


def named(y, state, dx, dstate0, dweights, step_norms=None) -> dict[str, Any]:
    result = {"y": y, "dx": dx}
    result |= {} if step_norms is None else {"step_norms": step_norms}
    result |= dict(zip(("h", "c"), state, strict=False))
    result |= dict(zip(("dh0", "dc0"), dstate0, strict=False))
    return result | dweights


def results_of(y, state, g):
    return named(y, unpacked(state), g.input, unpacked(g.state), g.weights, g.step_norms)


def run(layer, p):
    """forward and backward by the library"""
    y, state, tape = layer.forward(p.x, packed(p.state), lengths=p.lengths)
    return results_of(y, state, layer.backward(tape, p.dy, packed(p.dstate), step_norms=True))


def expected(weights, p, masks=None):
    """forward and backward by the oracle, on the same weights"""
    y, state, tape = reference.forward(p.net.cell, weights, p.x, p.state, p.lengths, masks)
    return named(y, state, *reference.backward(tape, p.dy, p.dstate))


def error(name, actual, wanted, floor=0.0):
    """Outputs and states: absolute, or relative to the largest where that exceeds one.
    Gradients: relative to the largest of the array, or to floor where that is larger."""
    if not actual.size:
        return 0.0
    largest = np.abs(wanted).max()
    scale = max(1.0, largest) if name in ("y", "h", "c") else max(largest, floor) or 1.0
    return np.abs(actual - wanted).max() / scale


def assert_close(actual, wanted, dtype, floor=0.0):
    assert actual.keys() == wanted.keys()
    for name, array in wanted.items():
        tolerance = OUTPUT_TOLERANCE if name in ("y", "h", "c") else GRADIENT_TOLERANCE
        assert actual[name].shape == array.shape, name
        assert actual[name].dtype == ("float64" if name == "step_norms" else dtype), name
        assert error(name, actual[name], array, floor) <= tolerance[dtype], name


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if a[name].tobytes() != b[name].tobytes()]
    assert not different, f"bits differ in {different}"


def in_layout(a, layout):
    """the same values, placed differently in memory"""
    if layout == "swapped":
        return np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1)
    if layout == "fortran":
        return np.asfortranarray(a)
    if layout == "reversed":
        return a[::-1, ::-1].copy()[::-1, ::-1]
    if layout == "misaligned":
        raw = np.zeros(a.nbytes + 1, np.uint8)
        view = raw[1:].view(a.dtype).reshape(a.shape)
    else:
        steps, batch, width = a.shape
        spaced = {
            "wide": np.full((steps, batch, width + 3), np.nan, a.dtype)[..., 1 : width + 1],
            "skipping": np.full((2 * steps, 3 * batch, width), np.nan, a.dtype)[::2, 1::3],
            "inner": np.full((steps, batch, 2 * width), np.nan, a.dtype)[..., ::2],
        }
        view = spaced.get(layout, np.empty_like(a))
    view[...] = a
    return view


LAYOUTS = ("contiguous", "swapped", "wide", "skipping", "inner", "fortran", "reversed",
           "misaligned")  # fmt: skip


def example(module, *distributions):
    """a module of examples/, whose test is skipped where a distribution is not installed"""
    for name in distributions:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{module} needs {name}", allow_module_level=True)
    return importlib.import_module(module)


def clones(layer):
    yield copy.deepcopy(layer)
    yield copy.copy(layer)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(layer, protocol))


def python_memory(call, times):
    """bytes that so many calls of it, after one, leave allocated in Python, and take at most"""
    call()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in itertools.repeat(None, times):  # whose numbers would be allocated
            call()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before, peak - before


def rejects(exception, *parts):
    """the message holds these texts, in this order, the argument first, and ends with a word"""
    end = r"[\s\S]*(?<!; )\Z"  # not where a hint would stand
    return pytest.raises(exception, match="^" + ".*".join(map(re.escape, parts)) + end)


def random(*shape, dtype=np.float32, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def same(a, b):
    """whether two states have the same bits"""
    return all(p.tobytes() == q.tobytes() for p, q in zip(unpacked(a), unpacked(b), strict=True))


def is_taken(layer):
    """whether the last call has packed nothing"""
    return bool(layer._packing._lease.taken)


def in_threads(count, work):
    """work(0) ... work(count - 1), each in a thread, all started together"""
    results, errors = [None] * count, []
    barrier = threading.Barrier(count)

    def body(k):
        try:
            barrier.wait(30)
            results[k] = work(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
        assert not t.is_alive()
    assert not errors, errors
    return results


def random_gradients(layer, steps):
    """dicts of gradients of all weights"""
    rng = np.random.default_rng(1)
    for _ in range(steps):
        yield {
            name: rng.standard_normal(w.shape).astype(w.dtype)
            for name, w in layer.parameters().items()
        }
