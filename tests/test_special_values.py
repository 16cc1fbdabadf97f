"""NaN and Inf propagate like IEEE 754 has it; denormals are flushed inside and only there."""

import numpy as np
import pytest

import fastrnn
import reference
from support import DTYPES, KINDS, net_of, packed, problem, run

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)


@both_dtypes
@each_kind
def test_nan_stays_in_its_row_and_goes_on(kind, dtype):
    net = net_of(kind, 5, 20, layers=2, dtype=dtype)
    p, layer = problem(net, steps=8, batch=5), net.build()
    clean, _ = layer(p.x)
    p.x[3, 2, 1] = np.nan
    y, _ = layer(p.x)
    assert np.isnan(y[3:, 2]).all()
    assert y[:3].tobytes() == clean[:3].tobytes()
    others = [0, 1, 3, 4]
    assert y[:, others].tobytes() == clean[:, others].tobytes()


@each_kind
def test_nan_reaches_both_directions(kind):
    net = net_of(kind, 5, 20, bidirectional=True)
    p, layer = problem(net, steps=8, batch=1), net.build()
    p.x[3, 0, 1] = np.nan
    y, _ = layer(p.x)
    nan = np.isnan(y[:, 0])
    assert nan[3:, : net.width].all() and not nan[:3, : net.width].any()
    assert nan[:4, net.width :].all() and not nan[4:, net.width :].any()


@each_kind
def test_nan_in_the_state(kind):
    net = net_of(kind, 5, 20)
    p, layer = problem(net, steps=3, batch=2), net.build()
    for part in range(len(p.state)):
        state = tuple(s.copy() for s in p.state)
        state[part][0, 1, 3] = np.nan
        y, _ = layer(p.x, packed(state))
        assert np.isnan(y[:, 1]).any(axis=1).all() and not np.isnan(y[:, 0]).any()


@both_dtypes
def test_an_infinite_gradient_ends_at_a_unit_that_relu_has_shut(dtype):
    net = net_of("rnn_relu", 5, 20, dtype=dtype)
    p, layer = problem(net, steps=6, batch=3), net.build()
    with layer.edit() as weights:
        weights["bias_ih_l0"][...] = -99
    p.dy[:], p.dstate[0][:] = np.inf, -np.inf
    assert not run(layer, p)["dx"].any()


@each_kind
def test_nan_in_gradients(kind):
    net = net_of(kind, 5, 20)
    p, layer = problem(net, steps=6, batch=3), net.build()
    if kind == "rnn_relu":
        with layer.edit() as weights:
            weights["bias_ih_l0"][...] = 9  # all units alive: a dead one hands nothing on
    clean = run(layer, p)
    p.dy[2, 1] = np.nan
    g = run(layer, p)
    assert np.isnan(g["dx"][:3, 1]).all()
    assert g["dx"][3:].tobytes() == clean["dx"][3:].tobytes()
    assert g["dx"][:, [0, 2]].tobytes() == clean["dx"][:, [0, 2]].tobytes()
    assert np.isnan(g["weight_ih_l0"]).any()


@both_dtypes
@each_kind
def test_infinity_like_the_reference(kind, dtype):
    net = net_of(kind, 5, 20, layers=2, dtype=dtype)
    p, layer = problem(net, steps=5, batch=4), net.build()
    p.x[1, 1, 0], p.x[2, 2, 3], p.x[1, 3, [0, 1]] = np.inf, -np.inf, np.inf
    y, _ = layer(p.x)
    with np.errstate(all="ignore"):
        wanted, _, _ = reference.forward(net.cell, layer.state_dict(), p.x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
    np.testing.assert_allclose(y, wanted, atol=1e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rnn_relu"])
def test_huge_values_saturate(kind):
    y, _ = net_of(kind, 5, 20).build()(np.full((4, 2, 5), 1e30, np.float32))
    assert np.isfinite(y).all()


def identity(dtype):
    """y = relu(x W), nothing else: what happens to a number inside is seen"""
    layer = fastrnn.RNN(64, 64, nonlinearity="relu", bias=False, dtype=dtype, num_threads=2)
    with layer.edit() as weights:
        weights["weight_ih_l0"][...] = np.eye(64)
        weights["weight_hh_l0"][...] = 0
    return layer


def keeps_denormals(dtype):
    """True while this thread computes with denormals"""
    smallest = np.full(8, np.finfo(dtype).smallest_normal, dtype)
    return bool((smallest * np.asarray(0.5, dtype)).all())


@pytest.mark.parametrize("batch", [1, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_denormals_are_zero_inside(dtype, batch):
    layer, normal = identity(dtype), np.finfo(dtype).smallest_normal
    x = np.full((30, batch, 64), normal / 4, dtype)
    assert x.all(), "a denormal"
    assert not layer(x)[0].any(), "denormal inputs are zero"
    x[...] = 2 * normal
    assert layer(x)[0].all()
    with layer.edit() as weights:
        weights["weight_ih_l0"][...] = np.eye(64) / 8
    assert not layer(x)[0].any(), "denormal results are zero"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_callers_mode_is_restored(dtype):
    layer = identity(dtype)
    x = np.ones((30, 40, 64), dtype)
    stream, linear = layer.stream(), fastrnn.Linear(64, 64, dtype=dtype)
    assert keeps_denormals(dtype)
    y, _, tape = layer.forward(x)
    assert keeps_denormals(dtype)
    layer.backward(tape, y)
    assert keeps_denormals(dtype)
    layer(x)
    assert keeps_denormals(dtype)
    stream.step(x[0, 0])
    assert keeps_denormals(dtype)
    stream.process(x[:, 0])
    assert keeps_denormals(dtype)
    y, tape = linear.forward(x)
    linear.backward(tape, y)
    assert keeps_denormals(dtype)
    for bad in (x[..., :3], x.astype(np.int8)):
        with pytest.raises((TypeError, ValueError)):
            stream.process(bad)
        assert keeps_denormals(dtype)
