"""Gradients against the float64 oracle (tight) and against central differences (loose)."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

import fastrnn
from fastrnn import functional
from support import (
    DTYPES,
    KINDS,
    assert_close,
    assert_same_bits,
    expected,
    net_of,
    packed,
    problem,
    run,
    same,
    unpacked,
)

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


def check(p):
    layer = p.net.build()
    assert_close(run(layer, p), expected(layer.state_dict(), p), p.net.dtype)


@pytest.mark.parametrize("lengths", [None, "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@both_dtypes
@each_kind
def test_matches_reference(kind, dtype, layers, bidirectional, lengths):
    net = net_of(kind, 5, 7, layers=layers, bidirectional=bidirectional, dtype=dtype)
    check(problem(net, steps=11, batch=6, lengths=lengths))


@both_dtypes
@each_kind
def test_without_bias(kind, dtype):
    net = net_of(kind, 5, 20, layers=2, bias=False, dtype=dtype)
    check(problem(net, steps=9, batch=5))


@both_dtypes
@each_kind
def test_sizes_of_real_use(kind, dtype):
    net = net_of(kind, 40, 96, dtype=dtype)
    check(problem(net, steps=40, batch=17, lengths="ragged"))


@each_kind
def test_many_rows(kind):
    """weight gradients sum over more rows than a block of them holds"""
    net = net_of(kind, 3, 9, dtype="float64")
    check(problem(net, steps=300, batch=9, lengths="ragged"))


@each_kind
def test_rows_that_end_blocks_of_time_before_x_does(kind):
    """blocks of time without a live row come first on the way back, and must not count as a sum"""
    net = net_of(kind, 3, 9, dtype="float64")
    lengths = np.random.default_rng(1).integers(0, 9, 64)
    check(problem(net, steps=40, batch=64, lengths=lengths))


def parts_of(p):
    dh, *dc = p.dstate
    yield replace(p, dstate=None)
    yield replace(p, dy=None)
    yield replace(p, state=None)
    yield replace(p, state=None, dstate=None)
    if dc:
        yield replace(p, dstate=(dh, None))
        yield replace(p, dy=None, dstate=(None, *dc))


@pytest.mark.parametrize("bidirectional", [False, True])
@each_kind
def test_any_part_of_the_gradients_may_be_missing(kind, bidirectional):
    net = net_of(kind, 5, 7, layers=2, bidirectional=bidirectional, dtype="float64")
    for part in parts_of(problem(net, steps=7, batch=4, lengths="ragged")):
        check(part)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@each_kind
def test_matches_central_differences(kind, layers, bidirectional):
    """the library against itself: forward knows nothing of backward"""
    net = net_of(kind, 3, 5, layers=layers, bidirectional=bidirectional, dtype="float64")
    p, layer = problem(net, steps=6, batch=3, lengths="ragged"), net.build()
    gradients = run(layer, p)

    def loss(x, state):
        y, final = layer(x, packed(state), lengths=p.lengths)
        terms = [np.vdot(y, p.dy)]
        return sum(terms + [np.vdot(*pair) for pair in zip(unpacked(final), p.dstate, strict=True)])

    def slope(array, k, evaluate):
        old, values = array.flat[k], []
        for sign in (1, -1):
            array.flat[k] = old + sign * 1e-6
            values.append(evaluate())
        array.flat[k] = old
        return (values[0] - values[1]) / 2e-6

    pairs = [(p.x, gradients["dx"]), (p.state[0], gradients["dh0"])]
    pairs += [(p.state[1], gradients["dc0"])] if net.has_c else []
    for array, gradient in pairs:
        for k in range(0, array.size, 1 + array.size // 10):
            numeric = slope(array, k, lambda: loss(p.x, p.state))
            assert numeric == pytest.approx(gradient.flat[k], rel=1e-5, abs=1e-6)
    for name, weight in layer.parameters().items():
        for k in range(0, weight.size, 1 + weight.size // 6):
            values = []
            for sign in (1, -1):
                with layer.edit() as weights:
                    weights[name].flat[k] += sign * 1e-6
                values.append(loss(p.x, p.state))
                with layer.edit() as weights:
                    weights[name].flat[k] -= sign * 1e-6
            numeric = (values[0] - values[1]) / 2e-6
            assert numeric == pytest.approx(gradients[name].flat[k], rel=1e-5, abs=1e-6), name


@each_kind
def test_padding_never_matters(kind):
    """past a row's end NaN in x and dy changes nothing, and dx is zero"""
    net = net_of(kind, 5, 20, layers=2, bidirectional=True)
    p, layer = problem(net, steps=9, batch=6, lengths="ragged"), net.build()
    clean = run(layer, p)
    dead = np.arange(9)[:, None] >= p.lengths
    p.x[dead] = np.nan
    p.dy[dead] = np.nan
    assert_same_bits(run(layer, p), clean)
    assert not clean["dx"][dead].any()


@pytest.mark.parametrize("what", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"])
@each_kind
def test_a_network_that_has_diverged_shows_it(kind, name, what):
    """what is no number is none in the reference, and else nothing is"""
    net = net_of(kind, 3, 20, dtype="float64")
    p, layer = problem(net, steps=5, batch=2), net.build()
    with layer.edit() as weights:
        weights[name].flat[7] = what
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = expected(layer.state_dict(), p)
    for result, found in run(layer, p).items():
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted[result]), result)


@each_kind
def test_a_tape_may_be_used_again(kind):
    net = net_of(kind, 5, 7, layers=2, bidirectional=True)
    p, layer = problem(net, steps=7, batch=4), net.build()
    y, _, tape = layer.forward(p.x, packed(p.state))
    first = layer.backward(tape, p.dy, packed(p.dstate))
    layer.forward(p.x[:3], packed(p.state))  # another tape in between
    again = layer.backward(tape, p.dy, packed(p.dstate))
    assert first.input.tobytes() == again.input.tobytes()
    assert_same_bits(first.weights, again.weights)
    other = layer.backward(tape, 2 * p.dy, packed(tuple(2 * d for d in p.dstate)))
    np.testing.assert_array_equal(other.input, 2 * first.input)
    assert not y.flags.writeable


@each_kind
def test_batch_first_and_unbatched(kind):
    net = net_of(kind, 5, 7, layers=2, bidirectional=True)
    p = problem(net, steps=6, batch=3, lengths="ragged")
    wanted = run(net.build(), p)
    first = net.build(batch_first=True)
    y, _, tape = first.forward(
        np.ascontiguousarray(p.x.swapaxes(0, 1)), packed(p.state), lengths=p.lengths
    )
    g = first.backward(tape, np.ascontiguousarray(p.dy.swapaxes(0, 1)), packed(p.dstate))
    assert g.input.shape == (3, 6, 5)
    assert g.input.swapaxes(0, 1).tobytes() == wanted["dx"].tobytes()
    assert g.weights["weight_hh_l1"].tobytes() == wanted["weight_hh_l1"].tobytes()

    p = problem(net, steps=6, batch=1)
    wanted = run(net.build(), p)
    layer = net.build()
    y, _, tape = layer.forward(p.x[:, 0], packed(tuple(s[:, 0] for s in p.state)))
    g = layer.backward(tape, p.dy[:, 0], packed(tuple(s[:, 0] for s in p.dstate)))
    assert y.ndim == g.input.ndim == unpacked(g.state)[0].ndim == 2
    assert g.input.tobytes() == wanted["dx"].tobytes()
    assert unpacked(g.state)[0].tobytes() == wanted["dh0"].tobytes()
    assert_same_bits(g.weights, {name: wanted[name] for name in g.weights})


@pytest.mark.parametrize("layout", ["time first", "batch first", "unbatched"])
@pytest.mark.parametrize("lengths", [None, "ragged"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@both_dtypes
@each_kind
def test_without_the_gradient_of_the_input(kind, dtype, layers, bidirectional, lengths, layout):
    """the others have the same bits, bound here or in C++"""
    net = net_of(kind, 5, 20, layers=layers, bidirectional=bidirectional, dtype=dtype)
    p = problem(net, steps=6, batch=1 if layout == "unbatched" else 3, lengths=lengths)
    layer = net.build(batch_first=layout == "batch first")
    x, dy, state, dstate = p.x, p.dy, p.state, p.dstate
    if layout == "batch first":
        x, dy = x.swapaxes(0, 1).copy(), dy.swapaxes(0, 1).copy()
    elif layout == "unbatched":
        x, dy = x[:, 0].copy(), dy[:, 0].copy()
        state, dstate = (tuple(s[:, 0].copy() for s in pair) for pair in (state, dstate))
    _, _, tape = layer.forward(x, packed(state), lengths=p.lengths)
    for up in (dy, np.asfortranarray(dy)):
        wanted = layer.backward(tape, up, packed(dstate))
        for back in (layer.backward, functional.backward):
            got = back(tape, up, packed(dstate), input_grad=False)
            assert got.input is None and wanted.input.shape == x.shape
            assert_same_bits(got.weights, wanted.weights)
            assert same(got.state, wanted.state)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(100, 1, 128), (100, 16, 96)])
def test_threads_without_the_gradient_of_the_input(sizes, threads):
    steps, batch, width = sizes
    net = net_of("lstm", width, width)
    p, layer = problem(net, steps, batch), net.build(num_threads=threads)
    _, _, tape = layer.forward(p.x)
    wanted, got = layer.backward(tape, p.dy), layer.backward(tape, p.dy, input_grad=False)
    assert got.input is None
    assert_same_bits(got.weights, wanted.weights)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
@each_kind
def test_nothing_without_the_gradient_of_the_input(kind, shape):
    layer = net_of(kind, 5, 7, bidirectional=True).build()
    y, _, tape = layer.forward(np.zeros((*shape, 5), np.float32))
    g = layer.backward(tape, y, input_grad=np.False_)
    assert g.input is None and not any(w.any() for w in g.weights.values())


def test_input_grad_is_true_or_false():
    layer, linear = fastrnn.GRU(3, 4), fastrnn.Linear(3, 4)
    x = np.zeros((2, 1, 3), np.float32)
    (y, _, tape), (z, of_linear) = layer.forward(x), linear.forward(x)
    for back in (
        lambda value: layer.backward(tape, y, input_grad=value),
        lambda value: functional.backward(tape, y, input_grad=value),
        lambda value: linear.backward(of_linear, z, input_grad=value),
    ):
        assert back(np.True_).input.shape == x.shape
        for wrong in (None, 0, "no"):
            with pytest.raises(TypeError, match="^input_grad: expected True or False, got"):
                back(wrong)


@pytest.mark.parametrize("make", [lambda: fastrnn.GRU(3, 4), lambda: fastrnn.Linear(3, 4)])
def test_a_tape_is_neither_copied_nor_pickled(make):
    *_, tape = make().forward(np.zeros((2, 1, 3), np.float32))
    for clone in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="^a Tape can be neither copied nor pickled"):
            clone(tape)


def test_gradients_are_frozen_and_complete():
    layer = fastrnn.LSTM(3, 4)
    y, _, tape = layer.forward(np.zeros((2, 1, 3), np.float32))
    g = layer.backward(tape, np.ones_like(y))
    assert isinstance(g, fastrnn.Gradients)
    assert isinstance(g.state, tuple) and len(g.state) == 2
    assert list(g.weights) == list(layer.state_dict())
    with pytest.raises(AttributeError):
        g.input = None


def test_gradients_print_their_shapes():
    x = np.zeros((2, 1, 3), np.float32)
    layer, gru, linear = fastrnn.LSTM(3, 4), fastrnn.GRU(3, 4, bias=False), fastrnn.Linear(3, 2)
    (y, _, tape), (z, _, of_gru), (p, of_linear) = (m.forward(x) for m in (layer, gru, linear))
    assert repr(layer.backward(tape, y)) == (
        "Gradients(input=[2, 1, 3], state=([1, 1, 4], [1, 1, 4]), weights={weight_ih_l0=[16, 3], "
        "weight_hh_l0=[16, 4], bias_ih_l0=[16], bias_hh_l0=[16]})"
    )
    assert repr(gru.backward(of_gru, z, input_grad=False, step_norms=True)) == (
        "Gradients(input=None, state=[1, 1, 4], weights={weight_ih_l0=[12, 3], "
        "weight_hh_l0=[12, 4]}, step_norms=[1, 2, 1])"
    )
    assert repr(linear.backward(of_linear, p)) == (
        "Gradients(input=[2, 1, 3], state=None, weights={weight=[2, 3], bias=[2]})"
    )


def test_gradients_are_told_apart_by_identity():
    layer = fastrnn.GRU(3, 4)
    y, _, tape = layer.forward(np.zeros((2, 1, 3), np.float32))
    g, other = layer.backward(tape, y), layer.backward(tape, y)
    assert g == g and g != other
    assert len({g, other, g}) == 2 and [other, g].index(g) == 1
