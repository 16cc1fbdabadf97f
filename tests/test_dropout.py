"""Dropout between layers: what its masks are, when it acts, its gradients.

A mask becomes visible through a last layer that hands its input on: `transparent` sets weights
so that a value of zero comes out as (about) zero and any other one does not.
"""

import copy
import json
import pickle

import numpy as np
import pytest

import fastrnn
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
    unpacked,
)

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)


def transparent(layer, net):
    """Make layer 1 of a two-layer network show its input: forward units the lower layer's
    forward half, reverse units the reverse half."""
    gates = {"lstm": 4, "gru": 3}.get(net.cell, 1)
    with layer.edit() as weights:
        for direction in range(net.directions):
            tail = "_l1" + "_reverse" * direction
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                weights[name + tail][...] = 0
            w = weights["weight_ih" + tail].reshape(gates, net.hidden, -1)
            b = weights["bias_ih" + tail].reshape(gates, net.hidden)
            candidate = {"lstm": 2, "gru": 2}.get(net.cell, 0)
            columns = slice(direction * net.width, (direction + 1) * net.width)
            w[candidate, : net.width, columns] = np.eye(net.width)
            if net.cell == "lstm":
                b[[0, 1, 3]] = np.array([50, -50, 50])[:, None]  # take all in, forget all
            elif net.cell == "gru":
                b[1] = -50  # keep nothing
            if net.proj:
                weights["weight_hr" + tail][...] = np.eye(net.proj, net.hidden)


def mask_of(net, layer, x, state):
    """the mask (0 or 1 / (1 - p)) of one call, [T, B, D*P]"""
    shown = copy.deepcopy(layer)  # of the same weights below and the same generator
    transparent(shown, net)
    y, _ = shown(x, packed(state))
    return np.where(np.abs(y) > 1e-12, 1 / (1 - layer.dropout), 0.0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["rnn_tanh", "lstm", "lstm_proj", "gru"])
def test_matches_the_reference_given_the_mask(kind, dtype, bidirectional):
    net = net_of(kind, 5, 12, layers=2, bidirectional=bidirectional, dtype=dtype)
    p, layer = problem(net, steps=9, batch=4), net.build(dropout=0.4)
    mask = mask_of(net, layer, p.x, p.state)
    assert 0.3 < np.mean(mask == 0) < 0.5
    wanted = expected(layer.state_dict(), p, masks=[mask])
    assert_close(run(layer, p), wanted, dtype)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_frequency_and_scale(p):
    """2 * 10^5 draws: within five standard deviations, everywhere, without patterns"""
    net = net_of("rnn_relu", 1, 50, layers=2)
    layer = net.build(dropout=p)
    transparent(layer, net)
    with layer.edit() as weights:
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_hh_l0"):
            weights[name][...] = 0
        weights["bias_ih_l0"][...] = 1
    y, _ = layer(np.zeros((80, 50, 1), np.float32))
    kept = y != 0
    np.testing.assert_allclose(y[kept], 1 / (1 - p), rtol=1e-6)
    deviation = np.sqrt(p * (1 - p))
    assert abs(kept.mean() - (1 - p)) < 5 * deviation / np.sqrt(kept.size)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        means, count = kept.mean(axis=others), kept.size // kept.shape[axis]
        assert np.abs(means - (1 - p)).max() < 5 * deviation / np.sqrt(count)
        ahead, behind = np.take(kept, range(1, kept.shape[axis]), axis), kept
        behind = np.take(behind, range(kept.shape[axis] - 1), axis)
        covariance = np.mean((ahead - (1 - p)) * (behind - (1 - p)))
        assert abs(covariance) < 5 * deviation**2 / np.sqrt(ahead.size)


@each_kind
def test_seed_repeats_masks(kind):
    net = net_of(kind, 5, 12, layers=3)
    p = problem(net, steps=9, batch=4)
    first, second, other = (net.build(seed=s, dropout=0.5) for s in (1, 1, 2))
    other.load_state_dict(first.state_dict())
    for _ in range(3):
        here = run(first, p)
        assert_same_bits(run(second, p), here)
        assert run(other, p)["y"].tobytes() != here["y"].tobytes()


@each_kind
def test_every_call_draws_anew(kind):
    net = net_of(kind, 5, 12, layers=2)
    p, layer = problem(net, steps=9, batch=4), net.build(dropout=0.5)
    draws = {layer(p.x)[0].tobytes() for _ in range(5)}
    draws |= {layer.forward(p.x)[0].tobytes() for _ in range(5)}
    assert len(draws) == 10


@each_kind
@pytest.mark.parametrize("method", ["__call__", "forward"])
def test_a_refused_call_draws_nothing(kind, method):
    net = net_of(kind, 5, 12, layers=2)
    p, layer, twin = problem(net, steps=9, batch=4), net.build(dropout=0.5), net.build(dropout=0.5)
    for x, state, lengths in (
        (p.x[..., :4], None, None),
        (p.x.astype(np.float64), None, None),
        (p.x, np.zeros(3, np.float32), None),
        (p.x, None, [1, 2]),
        (p.x, None, [1, 2, 3, 10]),
    ):
        with pytest.raises((TypeError, ValueError)):
            getattr(layer, method)(x, state, lengths=lengths)
    assert_same_bits(run(layer, p), run(twin, p))


def drawing_nothing(layer, p):
    """`run`, where dropout does not act: its generator stays as it is"""
    before = layer.generator.bit_generator.state
    results = run(layer, p), layer(p.x)
    assert layer.generator.bit_generator.state == before
    return results[0]


@each_kind
def test_acts_in_training_only(kind):
    net = net_of(kind, 5, 12, layers=2)
    p, layer = problem(net, steps=9, batch=4), net.build(dropout=0.5)
    plain = drawing_nothing(net.build(), p)
    assert layer.training
    assert run(layer, p)["y"].tobytes() != plain["y"].tobytes()
    assert layer.eval() is layer and not layer.training
    assert_same_bits(drawing_nothing(layer, p), plain)
    assert layer.train() is layer and layer.training
    assert run(layer, p)["y"].tobytes() != plain["y"].tobytes()
    layer.train(False)
    assert_same_bits(run(layer, p), plain)


def test_training_mode_is_true_or_false():
    layer = net_of("gru", 5, 12, layers=2).build(dropout=0.5)
    layer.training = np.False_
    assert layer.training is False
    for value in ("no", 1, None):
        with pytest.raises(TypeError, match="^training: expected True or False, got"):
            layer.training = value
    assert layer.training is False


@each_kind
def test_never_acts_on_the_last_layer_nor_on_states(kind):
    net = net_of(kind, 5, 40, layers=2)
    p, layer = problem(net, steps=9, batch=4), net.build(dropout=0.5)
    y, state = layer(p.x)
    plain_y, plain_state = layer.eval()(p.x)
    if kind != "rnn_relu":  # which makes zeros itself
        assert (y != 0).all()
    for ours, plain in zip(unpacked(state), unpacked(plain_state), strict=True):
        assert ours[0].tobytes() == plain[0].tobytes(), "dropped in the recurrence of layer 0"
        assert ours[1].tobytes() != plain[1].tobytes()
    assert y.tobytes() != plain_y.tobytes()


@pytest.mark.filterwarnings("ignore:dropout acts between layers")
@each_kind
def test_one_layer_has_none(kind):
    net = net_of(kind, 5, 12)
    p = problem(net, steps=9, batch=4)
    assert_same_bits(drawing_nothing(net.build(dropout=0.5), p), run(net.build(), p))


@each_kind
def test_certain_dropout_leaves_nothing(kind):
    net = net_of(kind, 5, 12, layers=2)
    p, layer = problem(net, steps=9, batch=4), net.build(dropout=1.0)
    results = run(layer, p)
    for name, value in expected(layer.state_dict(), p, masks=[np.zeros((9, 4, net.width))]).items():
        np.testing.assert_allclose(results[name], value, rtol=2e-5, atol=2e-5, err_msg=name)
    assert not results["weight_ih_l1"].any()


@pytest.mark.parametrize("layers", [2, 3])
@each_kind
def test_gradients_match_central_differences(kind, layers):
    """the same seed draws the same masks, for moved inputs too"""
    net = net_of(kind, 3, 6, layers=layers, bidirectional=True, dtype="float64")
    p = problem(net, steps=5, batch=3)
    gradient = run(net.build(dropout=0.5), p)["dx"]

    def loss():
        y, state = net.build(dropout=0.5)(p.x, packed(p.state))
        pairs = zip(unpacked(state), p.dstate, strict=True)
        return np.vdot(y, p.dy) + sum(np.vdot(*pair) for pair in pairs)

    for k in range(0, p.x.size, 4):
        old, values = p.x.flat[k], []
        for sign in (1, -1):
            p.x.flat[k] = old + sign * 1e-6
            values.append(loss())
        p.x.flat[k] = old
        slope = (values[0] - values[1]) / 2e-6
        assert slope == pytest.approx(gradient.flat[k], rel=1e-5, abs=1e-6)


@each_kind
def test_a_tape_keeps_its_masks(kind):
    net = net_of(kind, 5, 12, layers=3)
    p, layer = problem(net, steps=9, batch=4), net.build(dropout=0.5)
    _, _, tape = layer.forward(p.x)
    first = layer.backward(tape, p.dy)
    layer(p.x)
    layer.eval()  # of no consequence for what has been run
    again = layer.backward(tape, p.dy)
    assert first.input.tobytes() == again.input.tobytes()


@pytest.mark.parametrize("bidirectional", [False, True])
@each_kind
def test_threads_do_not_change_masks(kind, bidirectional):
    net = net_of(kind, 32, 64, layers=2, bidirectional=bidirectional)
    p = problem(net, steps=30, batch=24, lengths="ragged")
    alone = run(net.build(dropout=0.3, num_threads=1), p)
    for threads in (2, 3, 4):
        assert_same_bits(run(net.build(dropout=0.3, num_threads=threads), p), alone)


@pytest.mark.parametrize("lengths", [None, "ragged"])
def test_threads_mask_all_elements(lengths):
    """also where their number is odd and each thread takes a half"""
    net = net_of("lstm", 5, 33, layers=2)
    p = problem(net, steps=51, batch=5, lengths=lengths)
    two = net.build(dropout=0.3, num_threads=2)
    assert [layer["threads"] for layer in two.explain(51, 5).layers] == [2, 2]
    assert_same_bits(run(two, p), run(net.build(dropout=0.3, num_threads=1), p))


@pytest.mark.parametrize("lengths", [None, [70]])
@each_kind
def test_layers_at_work_together(kind, lengths):
    """chunks of steps are masked one by one; in place, without a tape, they cannot be"""
    net = net_of(kind, 20, 64, layers=3)
    p, layer = problem(net, 100, 1, lengths), net.build(dropout=0.3, num_threads=2)
    alone = net.build(dropout=0.3, num_threads=1)
    assert {part["split"] for part in layer.explain(100, 1, training=True).layers} == {"layers"}
    for _ in range(3):
        assert_same_bits(run(layer, p), run(alone, p))
        assert layer(p.x, lengths=lengths)[0].tobytes() == alone(p.x, lengths=lengths)[0].tobytes()


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_go_on_with_the_same_masks(clone):
    net = net_of("gru", 5, 12, layers=2)
    p, layer = problem(net, steps=9, batch=4), net.build(dropout=0.5)
    layer(p.x)
    twin = clone(layer)
    for _ in range(3):
        assert_same_bits(run(twin, p), run(layer, p))


def train(layer, optimizer, p, steps):
    for _ in range(steps):
        _, _, tape = layer.forward(p.x)
        optimizer.step(layer.backward(tape, p.dy))
    return layer.state_dict()


@each_kind
def test_training_resumes_with_the_same_masks(kind, tmp_path):
    """from what JSON holds and what a file does; without the generator's state it would not"""
    net = net_of(kind, 5, 12, layers=2)
    p, layer = problem(net, steps=9, batch=4), net.build(dropout=0.5)
    optimizer = fastrnn.optim.Adam(layer, lr=0.1)
    train(layer, optimizer, p, 3)
    layer.save(tmp_path / "layer")
    kept, of_adam = json.dumps(layer.generator.bit_generator.state), optimizer.state_dict()
    wanted = train(layer, optimizer, p, 3)
    for seeded in (True, False):
        again = fastrnn.load(tmp_path / "layer")
        if seeded:
            again.generator.bit_generator.state = json.loads(kept)
        optimizer = fastrnn.optim.Adam(again)
        optimizer.load_state_dict(of_adam)
        got = train(again, optimizer, p, 3)
        assert all(got[k].tobytes() == wanted[k].tobytes() for k in wanted) == seeded


def test_a_generator_of_ones_own():
    net = net_of("gru", 5, 12, layers=2)
    p, layer, twin = problem(net, steps=9, batch=4), net.build(dropout=0.5), net.build(dropout=0.5)
    for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox):
        layer.generator = np.random.Generator(kind(7))
        twin.generator = np.random.Generator(kind(7))
        first = run(twin, p)
        assert_same_bits(run(layer, p), first)
        assert run(layer, p)["y"].tobytes() != first["y"].tobytes()
    twin.generator = layer.generator  # in turn
    assert run(layer, p)["y"].tobytes() != run(twin, p)["y"].tobytes()


@pytest.mark.parametrize("value", [7, None, np.random, np.random.PCG64(7)])
def test_what_is_no_generator(value):
    layer = net_of("gru", 5, 12, layers=2).build(dropout=0.5)
    before = layer.generator
    got = type(value).__name__
    with pytest.raises(TypeError, match=f"^generator: expected an np.random.Generator, got {got};"):
        layer.generator = value
    assert layer.generator is before
