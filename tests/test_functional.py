"""The functions without an object give the bits of the layers."""

import numpy as np
import pytest

import fastrnn
from fastrnn import _threads, functional
from fastrnn._engine import Engine
from support import DTYPES, KINDS, assert_same_bits, net_of, packed, problem, results_of, run

pytestmark = pytest.mark.usefixtures("isa")
each_kind = pytest.mark.parametrize("kind", KINDS)


def functions(net):
    """the plain function and the one with a tape, and the options both take"""
    name = net.cell.split("_")[0]
    options = {"nonlinearity": net.cell[4:]} if name == "rnn" else {}
    return getattr(functional, name), getattr(functional, f"{name}_forward"), options


def weights_of(net):
    return net.build().state_dict()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@each_kind
def test_same_bits_as_the_layer(kind, dtype, layers, bidirectional, bias):
    """sizes, layers, directions, bias and projection are read off the weights"""
    net = net_of(kind, 5, 9, layers=layers, bidirectional=bidirectional, bias=bias, dtype=dtype)
    p, weights = problem(net, steps=6, batch=4, lengths="ragged"), weights_of(net)
    plain, with_tape, options = functions(net)
    y, state, tape = with_tape(p.x, weights, packed(p.state), lengths=p.lengths, **options)
    g = functional.backward(tape, p.dy, packed(p.dstate), step_norms=True)
    assert_same_bits(results_of(y, state, g), run(net.build(), p))
    y_plain, _ = plain(p.x, weights, packed(p.state), lengths=p.lengths, **options)
    assert y_plain.tobytes() == y.tobytes()


@each_kind
def test_options(kind):
    net = net_of(kind, 5, 9, layers=2)
    p, weights = problem(net, steps=6, batch=4), weights_of(net)
    plain, _, options = functions(net)
    wanted, _ = plain(p.x, weights, **options)
    swapped = np.ascontiguousarray(p.x.swapaxes(0, 1))
    y, _ = plain(swapped, weights, batch_first=True, num_threads=2, **options)
    assert y.swapaxes(0, 1).tobytes() == wanted.tobytes()
    alone, _ = plain(p.x[:, 0].copy(), weights, **options)
    assert alone.tobytes() == np.ascontiguousarray(wanted[:, 0]).tobytes()
    order = list(weights)[::-1]
    assert plain(p.x, {k: weights[k] for k in order}, **options)[0].tobytes() == wanted.tobytes()


def test_wrong_weights_are_listed():
    net = net_of("lstm", 5, 9, layers=2)
    x, weights = problem(net, steps=6, batch=4).x, weights_of(net)
    bad = {k: v for k, v in weights.items() if k != "weight_hh_l1"}
    with pytest.raises(ValueError, match="weights: .*weight_hh_l1"):
        functional.lstm(x, bad)
    with pytest.raises(ValueError, match="weights: .*nonsense"):
        functional.lstm(x, weights | {"nonsense": weights["bias_ih_l0"]})
    with pytest.raises(ValueError, match=r"weights: .*weight_hh_l1.*\[36, 9\].*\[36, 8\]"):
        functional.lstm(x, weights | {"weight_hh_l1": np.zeros((36, 8), np.float32)})
    with pytest.raises(ValueError, match="weight"):
        functional.lstm(x, {})
    with pytest.raises(TypeError, match="weights: "):
        functional.lstm(x, list(weights.values()))
    for shape in ((37, 5), (0, 5), (36, 0)):
        with pytest.raises(ValueError, match=rf"weight_ih_l0: .*\[{shape[0]}, {shape[1]}\]"):
            functional.lstm(x, weights | {"weight_ih_l0": np.zeros(shape, np.float32)})
    hr = {"weight_hr_l0": np.zeros((2, 9), np.float32)}
    with pytest.raises(ValueError, match="weights: unexpected weight_hr_l0"):
        functional.gru(x, weights_of(net_of("gru", 5, 9)) | hr)


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"])
def test_weights_that_are_no_matrices(name):
    net = net_of("lstm_proj", 5, 9)
    x, weights = problem(net, steps=6, batch=4).x, weights_of(net)
    form = {
        "weight_ih_l0": r"\[4 \* hidden_size, input_size\]",
        "weight_hh_l0": r"\[4 \* hidden_size, size of h\]",
        "weight_hr_l0": r"\[proj_size, hidden_size\]",
    }[name]
    for shape, shown in (((), r"\[\]"), ((36,), r"\[36\]"), ((36, 5, 1), r"\[36, 5, 1\]")):
        bad = weights | {name: np.zeros(shape, np.float32)}
        with pytest.raises(ValueError, match=f"^{name}: expected a matrix {form}, got .* {shown}"):
            functional.lstm(x, bad)


def test_wrong_x_and_state():
    net = net_of("gru", 5, 9)
    weights = weights_of(net)
    with pytest.raises(ValueError, match=r"x: expected.*5.*got \[6, 4, 4\]"):
        functional.gru(np.zeros((6, 4, 4), np.float32), weights)
    with pytest.raises(TypeError, match=r"x: expected.*float32.*got float64"):
        functional.gru(np.zeros((6, 4, 5)), weights)
    with pytest.raises(ValueError, match=r"h0: expected shape \[1, 4, 9\].*got \[1, 4, 8\]"):
        functional.gru(np.zeros((6, 4, 5), np.float32), weights, np.zeros((1, 4, 8), np.float32))


def test_tape_of_something_else():
    for tape in (None, np.zeros(3)):
        with pytest.raises(TypeError, match="tape: "):
            functional.backward(tape, np.zeros((6, 4, 9), np.float32))


@each_kind
def test_threads(kind, monkeypatch):
    asked = []
    for name in ("run", "forward", "backward"):
        original = getattr(Engine, name)

        def told(self, *given, original=original):
            asked.append(given[-1])
            return original(self, *given)

        monkeypatch.setattr(Engine, name, told)
    net = net_of(kind, 5, 9)
    p, weights = problem(net, steps=6, batch=4), weights_of(net)
    plain, with_tape, options = functions(net)
    for default, given, wanted in ((0, None, 0), (3, None, 3), (3, 2, 2)):
        monkeypatch.setattr(_threads, "default", default)
        plain(p.x, weights, num_threads=given, **options)
        *_, tape = with_tape(p.x, weights, num_threads=given, **options)
        functional.backward(tape, p.dy, num_threads=given)
        assert asked[-3:] == [wanted] * 3


@each_kind
def test_weights_changed_after_forward(kind):
    """backward uses the weights of forward, whatever the caller has done to them since"""
    net = net_of(kind, 5, 7)
    x, weights = problem(net, steps=6, batch=2).x, weights_of(net)
    _, forward, options = functions(net)
    y, _, tape = forward(x, weights, **options)
    wanted = functional.backward(tape, np.ones_like(y))
    y, _, tape = forward(x, weights, **options)
    for w in weights.values():
        w[...] = 0
    got = functional.backward(tape, np.ones_like(y))
    assert got.input.tobytes() == wanted.input.tobytes()


@pytest.mark.parametrize("bidirectional", [False, True])
@each_kind
def test_dropout(kind, bidirectional):
    """the masks are those of a layer whose generator has the same seed, on the way back, too"""
    net = net_of(kind, 5, 12, layers=3, bidirectional=bidirectional)
    p, weights = problem(net, steps=9, batch=4, lengths="ragged"), weights_of(net)
    plain, with_tape, options = functions(net)
    options |= dict(lengths=p.lengths, dropout=0.5)
    layer = net.build(dropout=0.5)
    layer.generator = np.random.default_rng(7)
    wanted = run(layer, p)
    y, state, tape = with_tape(p.x, weights, packed(p.state), seed=7, **options)
    g = functional.backward(tape, p.dy, packed(p.dstate), step_norms=True)
    assert_same_bits(results_of(y, state, g), wanted)
    seeds = (7, 7, 8, None, None)
    draws = [plain(p.x, weights, packed(p.state), seed=s, **options)[0].tobytes() for s in seeds]
    assert draws[0] == draws[1] == y.tobytes()
    assert len(set(draws)) == 4


@each_kind
def test_dropout_of_one_layer_warns(kind):
    """as the class does, of the caller's line; with two layers it acts, and nobody is warned"""
    for layers in (1, 2):
        net = net_of(kind, 5, 7, layers=layers)
        p, weights = problem(net, steps=6, batch=2), weights_of(net)
        for function in functions(net)[:2]:
            options = functions(net)[2] | dict(dropout=0.5, seed=1)
            plain = function(p.x, weights, **functions(net)[2])[0]
            if layers == 2:
                assert function(p.x, weights, **options)[0].tobytes() != plain.tobytes()
                continue
            said = r"^dropout acts between layers: dropout=0.5 does nothing with num_layers=1"
            with pytest.warns(UserWarning, match=said) as caught:
                y = function(p.x, weights, **options)[0]
            assert y.tobytes() == plain.tobytes()
            assert [w.filename for w in caught] == [__file__]


@each_kind
def test_options_out_of_range(kind):
    net = net_of(kind, 5, 7, layers=2)
    p, weights = problem(net, steps=6, batch=2), weights_of(net)
    for function in functions(net)[:2]:
        for wrong in (1.5, -0.5):
            with pytest.raises(ValueError, match=rf"^dropout: .* in \[0, 1\], got {wrong}"):
                function(p.x, weights, dropout=wrong, **functions(net)[2])
        y, *_ = function(p.x, weights, dropout=1.0, **functions(net)[2])
        assert np.isfinite(y).all()


def test_a_tape_of_something_else():
    linear = fastrnn.Linear(2, 3)
    _, tape = linear.forward(np.ones((1, 2), np.float32))
    with pytest.raises(TypeError, match=r"^tape: expected a Tape of an RNN, LSTM or GRU, got Tape "
                                        r"of Linear\(2, 3\)"):  # fmt: skip
        functional.backward(tape, np.ones((1, 3), np.float32))
