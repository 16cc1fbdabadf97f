"""Single steps of training: the first one since the weights changed reads them where they lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import _core
from support import (
    CELLS,
    DTYPES,
    Net,
    assert_close,
    assert_same_bits,
    clones,
    expected,
    is_taken,
    packed,
    problem,
    random,
    run,
)

GROUP = {"avx512": 4, "avx2": 2}  # rows multiplied at once with weights as they lie; others 1
FEW = 4  # groups, of large weights; more rows are multiplied by pieces
MOST = 128  # more are not multiplied by those either
ROWS = [1, 7, 17]
NET = Net("lstm", 24, 40, layers=2, bidirectional=True)
ONE_WAY = Net("lstm", 24, 40, layers=2)
SIZES = [1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 161]


def packed_now(layer):
    """a layer whose next call finds packed weights"""
    layer._packing.acquire().users.pop()
    return layer


def by_packed(layer, p):
    """the same with packed weights: a sequence packs those of both passes"""
    run(layer, problem(p.net, steps=2, batch=1))
    return run(layer, p)


def changed(layer):
    with layer.edit():
        pass
    return layer


@settings(max_examples=80)
@given(data=st.data())
def test_the_bits_are_those_of_packed_weights(data, isa):
    draw = data.draw
    net = Net(
        draw(st.sampled_from(CELLS)),
        draw(st.sampled_from(SIZES)),
        draw(st.sampled_from([15, 16, 17, 20, 31, 32, 48, 63, 100, 112])),
        layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        dtype=draw(st.sampled_from(DTYPES)),
    )
    rows = draw(st.integers(1, 17) | st.sampled_from([24, 33, MOST, MOST + 1]))
    p, layer = problem(net, steps=1, batch=rows), net.build(num_threads=draw(st.integers(1, 3)))
    # Of 161 inputs on 16 units sums are 5 and more, whose own rounding is up to 2e-6.
    p.x[:] *= min(1.0, (net.hidden / net.inputs) ** 0.5)
    first = run(layer, p)
    assert is_taken(layer) == (net.hidden >= 16 and rows <= MOST)
    y, _ = layer(p.x, packed(p.state))
    second = by_packed(layer, p)
    assert not is_taken(layer)
    np.testing.assert_array_equal(y, first["y"])
    assert_same_bits(first, second)
    assert_close(first, expected(layer.state_dict(), p), net.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("groups", [1, FEW, FEW + 1])
def test_many_columns(groups, cell, dtype, isa):
    """more than are summed at once, rows of weights a multiple of 4 KB long; more than stays in
    caches, written past them where rows of U's gradients begin with a vector; groups of which the
    last lacks a row"""
    net = Net(cell, 2053, 1024 if groups == 1 else 517, dtype=dtype)
    rows = groups * GROUP.get(isa, 1) - (groups == FEW)
    p, layer = problem(net, steps=1, batch=rows), net.build()
    first = run(layer, p)
    assert is_taken(layer)
    if dtype == "float64":  # sums of 2,053 floats round more than is allowed elsewhere
        assert_close(first, expected(layer.state_dict(), p), dtype)
    assert_same_bits(first, by_packed(layer, p))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_columns_and_rows(threads, rows, isa):
    net = Net("gru", 203, 157, layers=2, bidirectional=True)
    p = problem(net, steps=1, batch=rows)
    layer = net.build(num_threads=threads)
    assert_same_bits(run(layer, p), by_packed(layer, p))


@pytest.mark.parametrize("value", [-0.0, np.inf, np.nan, 1e-42, 3e38])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("rows", ROWS)
def test_special_values(rows, cell, value, isa):
    net = Net(cell, 19, 37)
    p, layer = problem(net, steps=1, batch=rows), net.build()
    p.x[0, 0, 5] = p.dy[0, 0, 36] = p.state[0][0, 0, 3] = value
    with layer.edit() as weights:
        weights["weight_ih_l0"][7, 3] = weights["weight_hh_l0"][30, 36] = value
    assert_same_bits(run(layer, p), by_packed(layer, p))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("options", [{"input_grad": False}, {"step_norms": True}])
def test_what_backward_is_asked_for(options, rows, isa):
    layer, p = NET.build(), problem(NET, steps=1, batch=rows)
    found = []
    for _ in range(2):
        _, _, tape = layer.forward(p.x, p.state)
        assert is_taken(layer) == (not found)
        found.append(layer.backward(tape, None, p.dstate, **options))
        packed_now(layer)
    once, again = found
    assert (once.input is None) == (again.input is None) == (not options.get("input_grad", True))
    assert_same_bits(once.weights, again.weights)
    assert_same_bits(
        dict(zip("hc", once.state, strict=True)), dict(zip("hc", again.state, strict=True))
    )
    if once.step_norms is not None:
        np.testing.assert_array_equal(once.step_norms, again.step_norms)


@pytest.mark.parametrize(
    ("layout", "rows"),
    [("unbatched", 1), *((layout, rows) for layout in ("batch_first", "strided") for rows in ROWS)],
)
def test_layouts(layout, rows, isa):
    p = problem(NET, steps=1, batch=rows)
    layer = fastrnn.LSTM(24, 40, 2, bidirectional=True, batch_first=layout == "batch_first", seed=1)
    x, dy, state, dstate = p.x, p.dy, p.state, p.dstate
    if layout == "batch_first":
        x, dy = x.transpose(1, 0, 2), dy.transpose(1, 0, 2)
    if layout == "unbatched":
        x, dy = x[:, 0], dy[:, 0]
        state, dstate = (tuple(s[:, 0] for s in pair) for pair in (state, dstate))
    elif layout == "strided":
        x, dy = (np.repeat(np.repeat(a, 2, 0), 3, 2)[::2, :, ::3] for a in (x, dy))
    found = []
    for _ in range(2):
        y, _, tape = layer.forward(x, state)
        assert is_taken(layer) == (not found)
        g = layer.backward(tape, dy, dstate)
        packed_now(layer)
        found.append({"y": y, "dx": g.input, "dh": g.state[0], "dc": g.state[1]} | g.weights)
    assert_same_bits(*found)
    wanted = expected(layer.state_dict(), p)
    dx = found[0]["dx"].reshape(1, rows, 24)
    np.testing.assert_allclose(dx, wanted["dx"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", ROWS)
def test_the_fifth_pass_finds_packed_weights(rows):
    """to pack them takes as long as five passes that read them where they lie"""
    layer, p = NET.build(), problem(NET, steps=1, batch=rows)
    passes = [layer, layer.forward, layer, layer.forward, layer]
    found = [(each(p.x)[0].tobytes(), is_taken(layer)) for each in passes]
    assert [taken for _, taken in found] == [True] * 4 + [False]
    assert len({y for y, _ in found}) == 1
    changed(layer)(p.x)
    assert is_taken(layer)
    layer(np.concatenate([p.x] * 2))
    layer(p.x)
    assert not is_taken(layer), "as two steps have packed them"


@pytest.mark.parametrize("rows", ROWS)
def test_a_tape_outlives_what_comes_between(rows, isa):
    """a sequence, a stream, copies, all of which pack"""
    layer, p = ONE_WAY.build(), problem(ONE_WAY, steps=1, batch=rows)
    wanted = run(layer, p)
    betweens = [
        lambda: layer(problem(ONE_WAY, steps=9, batch=3).x),
        lambda: layer(p.x),
        lambda: layer.stream().step(p.x[0, 0]),
        lambda: fastrnn.StreamPool(layer, 3),
        lambda: clones(layer),
        lambda: layer.explain(5, 2),
        lambda: run(layer, problem(ONE_WAY, steps=4, batch=3)),
    ]
    for between in betweens:
        y, _, tape = changed(layer).forward(p.x, packed(p.state))
        assert is_taken(layer)
        between()
        g = layer.backward(tape, p.dy, packed(p.dstate))
        np.testing.assert_array_equal(y, wanted["y"])
        np.testing.assert_array_equal(g.input, wanted["dx"])
        assert_same_bits(g.weights, {name: wanted[name] for name in g.weights})


def test_streams_keep_the_weights_that_a_step_has_read():
    layer, p = ONE_WAY.build(), problem(ONE_WAY, steps=1, batch=1)
    y, _, _ = layer.forward(p.x)
    stream = layer.stream()
    with layer.edit() as weights:
        for w in weights.values():
            w *= 2
    for each in (stream, *clones(stream)):
        np.testing.assert_array_equal(each.step(p.x[0, 0]), y[0, 0])


def test_calls_that_look_like_a_step_and_are_none():
    """what the shape does not tell: lists are no arrays, one row may have no step"""
    layer = fastrnn.GRU(3, 16, seed=1)
    x = np.ones((1, 1, 3), np.float32)
    for other in ([[[1.0] * 3]] * 4, x[0, 0], np.ones((1, 1, 4), np.float32), x.astype(np.float64)):
        with pytest.raises((TypeError, ValueError), match="^x: expected "):
            changed(layer).forward(other)
    y, _, tape = changed(layer).forward(x, lengths=[0])
    assert not is_taken(layer)
    assert not y.any() and not layer.backward(tape, np.ones_like(y)).weights["bias_hh_l0"].any()
    dropping = fastrnn.GRU(3, 16, 2, dropout=0.5, seed=1)
    dropping.forward(x)
    assert not is_taken(dropping)
    dropping.eval().forward(x)
    assert not is_taken(dropping), "the weights have not changed"
    changed(dropping).forward(x)
    assert is_taken(dropping)


@settings(max_examples=60)
@given(data=st.data())
def test_linear_has_the_bits_of_packed_weights(data, isa):
    draw = data.draw
    inputs, outputs = (draw(st.sampled_from([*SIZES, 100, 1025])) for _ in range(2))
    dtype, rows = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 9) | st.just(MOST))
    linear = fastrnn.Linear(
        inputs, outputs, bias=draw(st.booleans()), dtype=dtype, num_threads=draw(st.integers(1, 3))
    )
    x, dy = random(rows, inputs, dtype=dtype), random(rows, outputs, dtype=dtype)
    few, large = rows <= GROUP.get(isa, 1), linear.state_dict()["weight"].nbytes >= 384 << 10
    found = []
    for _ in range(2):
        y, tape = linear.forward(x)
        unpacked = outputs >= 16 and rows >= 1 and (few or large)
        assert is_taken(linear) == (unpacked and not found)
        g = linear.backward(tape, dy)
        packed_now(linear)
        found.append({"y": y, "dx": g.input} | g.weights)
        _, tape = linear.forward(random(MOST + 1, inputs, dtype=dtype))  # too many: all is packed
        linear.backward(tape, random(MOST + 1, outputs, dtype=dtype))
    assert_same_bits(*found)
    np.testing.assert_array_equal(found[0]["y"], linear(x))
    w = linear.state_dict()["weight"]
    np.testing.assert_allclose(found[0]["dx"], dy @ w, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[0]["weight"], dy.T @ x, rtol=0, atol=1e-4)


def test_the_core_says_what_it_takes(isa):
    network = _core.Network("lstm", "float32", 3, 16, 1, True, False, 0)
    weights = list(fastrnn.LSTM(3, 16).state_dict().values())
    shapes = [(1, 1), (1, MOST), (1, MOST + 1), (2, 1), (0, 1), (1, 0)]
    taken = [network.take(weights, steps, rows) for steps, rows in shapes]
    assert taken == [True, True, False, False, False, False]
    with pytest.raises(ValueError, match="^weights: expected 4 arrays, got 3"):
        network.take(weights[:3], 1, 1)
    assert not _core.Network("lstm", "float32", 3, 16, 1, True, False, 5).take([], 1, 1)
    with pytest.raises(RuntimeError, match="^network: was never initialised"):
        _core.Network.__new__(_core.Network).take(weights, 1, 1)
