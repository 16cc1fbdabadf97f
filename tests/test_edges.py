"""Sizes at the edges: nothing, one, primes, a vector's width and its neighbours."""

from dataclasses import replace

import numpy as np
import pytest

from support import KINDS, assert_close, expected, net_of, packed, problem, run, unpacked

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)

WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 23, 31, 32, 33, 47, 63, 64, 65]


def check(net, steps, batch, lengths=None):
    p, layer = problem(net, steps, batch, lengths), net.build()
    assert_close(run(layer, p), expected(layer.state_dict(), p), net.dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hidden", WIDTHS)
@each_kind
def test_hidden_sizes(kind, hidden, dtype):
    if kind == "lstm_proj" and hidden == 1:
        pytest.skip("nothing to project onto")
    check(net_of(kind, 3, hidden, dtype=dtype), steps=4, batch=3)


@pytest.mark.parametrize("inputs", WIDTHS)
@each_kind
def test_input_sizes(kind, inputs):
    check(net_of(kind, inputs, 6), steps=4, batch=3)


@pytest.mark.parametrize("batch", [*range(1, 20), 31, 32, 33, 64, 67])
@each_kind
def test_batch_sizes(kind, batch):
    check(net_of(kind, 3, 17), steps=3, batch=batch, lengths="ragged" if batch % 2 else None)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 16, 101])
@each_kind
def test_lengths_of_time(kind, steps):
    check(net_of(kind, 3, 5), steps=steps, batch=2)


@pytest.mark.parametrize("proj", [1, 7, 8, 9, 15, 16, 17, 39])
def test_projection_sizes(proj):
    net = replace(net_of("lstm", 3, 40, layers=2, bidirectional=True), proj=proj)
    check(net, steps=4, batch=3)


@pytest.mark.parametrize("layers", [4, 7])
@each_kind
def test_deep(kind, layers):
    check(net_of(kind, 3, 5, layers=layers, bidirectional=True), steps=4, batch=3)


@each_kind
def test_many_layers_of_many_rows_with_all_rows_empty(kind):
    net = net_of(kind, 3, 5, layers=2, bidirectional=True)
    check(net, steps=4, batch=3, lengths=np.zeros(3, np.int64))


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])
@pytest.mark.parametrize("batch_first", [False, True])
@each_kind
def test_empty_is_valid(kind, batch_first, steps, batch):
    """no steps: the state passes through; no rows: empty results; gradients are zeros"""
    net = net_of(kind, 3, 5, layers=2, bidirectional=True)
    p, layer = problem(net, steps, batch), net.build(batch_first=batch_first)
    x = p.x.swapaxes(0, 1) if batch_first else p.x
    y, state, tape = layer.forward(x, packed(p.state))
    assert y.shape == (*x.shape[:2], 2 * net.width)
    for ours, given in zip(unpacked(state), p.state, strict=True):
        assert ours.tobytes() == given.tobytes()
    g = layer.backward(tape, np.zeros_like(y), packed(p.dstate))
    assert g.input.shape == x.shape
    for ours, given in zip(unpacked(g.state), p.dstate, strict=True):
        assert ours.tobytes() == given.tobytes()
    assert not any(w.any() for w in g.weights.values())


@each_kind
def test_no_lengths_of_no_rows(kind):
    """NumPy takes an empty list for one of floats"""
    net = net_of(kind, 3, 5)
    y, _ = net.build()(np.empty((4, 0, 3), np.float32), lengths=[])
    assert y.shape == (4, 0, net.width)


@each_kind
def test_empty_unbatched(kind):
    net = net_of(kind, 3, 5)
    y, state = net.build()(np.empty((0, 3), np.float32))
    assert y.shape == (0, net.width)
    assert not any(s.any() for s in unpacked(state))
