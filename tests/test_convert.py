"""Weights of Keras and ONNX: our layers then compute what their specifications say.

The equations stand here as those specifications write them, gate by gate in their order. (Keras
3.15 and ONNX Runtime 1.32 themselves were asked once; examples/silero_vad.py asks the latter.)
"""

import numpy as np
import pytest

import fastrnn
from fastrnn import convert
from support import DTYPES

CLASSES = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
T, B, I, H = 6, 2, 3, 4

each_cell = pytest.mark.parametrize("cell", CLASSES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def onnx_steps(cell, x, w, r, wb, rb):
    """one direction: Xt*(W^T) + Ht-1*(R^T) + Wb + Rb, gates i o f c or z r h"""
    h, c, out = np.zeros((B, H)), np.zeros((B, H)), []
    for xt in x:
        a = np.split(xt @ w.T + wb, GATES[cell], axis=1)
        u = np.split(h @ r.T + rb, GATES[cell], axis=1)
        if cell == "rnn":
            h = np.tanh(a[0] + u[0])
        elif cell == "lstm":
            i, o, f = (sigmoid(a[k] + u[k]) for k in range(3))
            c = f * c + i * np.tanh(a[3] + u[3])
            h = o * np.tanh(c)
        else:
            z, r_ = sigmoid(a[0] + u[0]), sigmoid(a[1] + u[1])
            h = (1 - z) * np.tanh(a[2] + r_ * u[2]) + z * h
        out.append(h)
    return np.stack(out)


def keras_steps(cell, x, kernel, recurrent, bias):
    """one direction: x @ kernel + h @ recurrent + bias, gates i f c o; z r h with reset_after"""
    h, c, out = np.zeros((B, H)), np.zeros((B, H)), []
    input_bias, state_bias = bias if cell == "gru" else (bias, 0)
    for xt in x:
        a = np.split(xt @ kernel + input_bias, GATES[cell], axis=1)
        u = np.split(h @ recurrent + state_bias, GATES[cell], axis=1)
        if cell == "rnn":
            h = np.tanh(a[0] + u[0])
        elif cell == "lstm":
            i, f, o = sigmoid(a[0] + u[0]), sigmoid(a[1] + u[1]), sigmoid(a[3] + u[3])
            c = f * c + i * np.tanh(a[2] + u[2])
            h = o * np.tanh(c)
        else:
            z, r = sigmoid(a[0] + u[0]), sigmoid(a[1] + u[1])
            h = z * h + (1 - z) * np.tanh(a[2] + r * u[2])
        out.append(h)
    return np.stack(out)


def draw(rng, dtype, *shape):
    return rng.uniform(-1, 1, shape).astype(dtype)


def onnx_arrays(rng, cell, dtype, directions=1, inputs=I):
    rows = GATES[cell] * H
    shapes = ((directions, rows, inputs), (directions, rows, H), (directions, 2 * rows))
    return [draw(rng, dtype, *shape) for shape in shapes]


def keras_arrays(rng, cell, dtype, directions=1, inputs=I):
    rows = GATES[cell] * H
    shapes = ((inputs, rows), (H, rows), (2, rows) if cell == "gru" else (rows,))
    return [draw(rng, dtype, *shape) for shape in shapes * directions]


def both_ways(steps, x):
    """[forward, backward] side by side, where there are two"""
    ways = [steps(direction, x[::-1] if direction else x) for direction in range(2)]
    return np.concatenate([ways[0], ways[1][::-1]], axis=2)


@each_dtype
@each_cell
@pytest.mark.usefixtures("isa")
def test_onnx(cell, dtype):
    rng = np.random.default_rng(1)
    x = draw(rng, dtype, T, B, I)
    w, r, b = onnx_arrays(rng, cell, dtype, 2)
    layer = CLASSES[cell](I, H, bidirectional=True, dtype=np.dtype(dtype))
    layer.load_state_dict(convert.from_onnx(cell, w, r, b))
    wanted = both_ways(lambda d, x: onnx_steps(cell, x, w[d], r[d], *np.split(b[d], 2)), x)
    np.testing.assert_allclose(layer(x)[0], wanted, atol=1e-6 if dtype == "float32" else 1e-14)
    without = convert.from_onnx(cell, w, r)
    assert not without["bias_ih_l0"].any() and not without["bias_hh_l0_reverse"].any()


@each_dtype
@each_cell
@pytest.mark.usefixtures("isa")
def test_keras(cell, dtype):
    """two layers of two directions"""
    rng = np.random.default_rng(2)
    x = draw(rng, dtype, T, B, I)
    first = keras_arrays(rng, cell, dtype, 2)
    second = keras_arrays(rng, cell, dtype, 2, 2 * H)
    layer = CLASSES[cell](I, H, num_layers=2, bidirectional=True, dtype=np.dtype(dtype))
    layer.load_state_dict(
        convert.from_keras(cell, first) | convert.from_keras(cell, second, layer=1)
    )
    wanted = x.astype(np.float64)
    for weights in (first, second):
        steps = lambda d, x, w=weights: keras_steps(cell, x, *w[3 * d : 3 * d + 3])  # noqa: E731
        wanted = both_ways(steps, wanted)
    np.testing.assert_allclose(layer(x)[0], wanted, atol=2e-6 if dtype == "float32" else 1e-14)


@each_cell
def test_the_way_out_to_keras(cell):
    """as docs/api.md has it"""
    rng = np.random.default_rng(4)
    layer, x = CLASSES[cell](I, H, seed=1), draw(rng, "float32", T, B, I)
    weights = layer.state_dict()
    if cell == "gru":
        split = {name: np.split(w, 3) for name, w in weights.items()}
        weights = {name: np.concatenate([z, r, n]) for name, (r, z, n) in split.items()}
    biases = weights["bias_ih_l0"], weights["bias_hh_l0"]
    bias = np.stack(biases) if cell == "gru" else sum(biases)
    wanted = keras_steps(cell, x, weights["weight_ih_l0"].T, weights["weight_hh_l0"].T, bias)
    np.testing.assert_allclose(layer(x)[0], wanted, atol=1e-6)


@each_cell
def test_keras_without_bias(cell):
    rng = np.random.default_rng(3)
    kernel, recurrent, bias = keras_arrays(rng, cell, "float32")
    layer = CLASSES[cell](I, H, bias=False)
    layer.load_state_dict(convert.from_keras(cell, [kernel, recurrent]))
    twice = convert.from_keras(cell, (kernel, recurrent, kernel, recurrent))
    assert list(twice) == [f"weight_{w}_l0{d}" for d in ("", "_reverse") for w in ("ih", "hh")]
    x = draw(rng, "float32", T, B, I)
    wanted = keras_steps(cell, x, kernel, recurrent, 0 * bias)
    np.testing.assert_allclose(layer(x)[0], wanted, atol=1e-6)


@each_cell
def test_the_arrays_are_copies_in_c_order(cell):
    """a writer of files that looks at the memory alone would scramble others"""
    rng = np.random.default_rng(4)
    onnx, keras = onnx_arrays(rng, cell, "float32"), keras_arrays(rng, cell, "float32")
    for given, found in (
        (onnx, convert.from_onnx(cell, *onnx)),
        (keras, convert.from_keras(cell, keras)),
    ):
        for array in found.values():
            assert array.flags.c_contiguous and array.flags.writeable
            assert not any(np.shares_memory(array, one) for one in given)


@each_cell
@pytest.mark.parametrize("inputs", [1, 1 << 20])
def test_the_least_and_the_largest_sizes(cell, inputs):
    w, r = np.zeros((1, GATES[cell], inputs), np.float32), np.ones((1, GATES[cell], 1), np.float32)
    for found in (convert.from_onnx(cell, w, r), convert.from_keras(cell, [w[0].T, r[0].T])):
        assert found["weight_ih_l0"].shape == (GATES[cell], inputs)
        assert found["weight_hh_l0"].shape == (GATES[cell], 1)


def test_the_one_bias_of_keras_is_that_of_the_input():
    kernel, recurrent, bias = keras_arrays(np.random.default_rng(7), "lstm", "float32")
    found = convert.from_keras("lstm", [kernel, recurrent, bias], layer=(1 << 20) - 1)
    assert found["bias_ih_l1048575"].tobytes() == bias.tobytes()
    assert not found["bias_hh_l1048575"].any()


ONNX = onnx_arrays(np.random.default_rng(5), "lstm", "float32")
KERAS = keras_arrays(np.random.default_rng(6), "gru", "float32")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("LSTM", *ONNX), ValueError, "cell: expected 'rnn' or 'lstm' or 'gru', got 'LSTM'"),
        (("gru", *ONNX), ValueError, r"R: expected shape \[1 or 2, 3 \* H, H\], .* \[1, 16, 4\]"),
        (
            ("lstm", ONNX[0][0], *ONNX[1:]),
            ValueError,
            r"W: expected shape \[1, 16, I\], .* got \[16",
        ),
        (("lstm", *ONNX[:2], ONNX[2][0]), ValueError, r"B: expected shape \[1, 32\], got \[32\]"),
        (
            ("lstm", ONNX[0].astype(int), *ONNX[1:]),
            TypeError,
            "W: expected dtype float32 or float64",
        ),
        (("lstm", ONNX[0], ONNX[1].astype(float)), TypeError, "R: expected dtype float32, got"),
        (("lstm", ONNX[0], np.repeat(ONNX[1], 3, 0)), ValueError, r"R: .* got \[3, 16, 4\]"),
        (("lstm", ONNX[0], ONNX[1][0]), ValueError, r"R: .* got \[16, 4\]"),
        (("lstm", ONNX[0], ONNX[1][:, :0, :0]), ValueError, r"sizes from 1 to 1048576, got \[1, 0"),
        (("lstm", ONNX[0][:, :, :0], ONNX[1]), ValueError, r"W: .* 1 to 1048576, got \[1, 16, 0\]"),
        (
            (np.array(["lstm"]), *ONNX),
            ValueError,
            "cell: expected 'rnn' or 'lstm' or 'gru', got ar",
        ),
        (("lstm", ONNX[0].astype(">f4"), ONNX[1]), TypeError, r"W: .* order; try W.astype\(np.fl"),
        (("lstm", None, ONNX[1]), TypeError, "W: expected an array, got NoneType"),
    ],
)
def test_bad_onnx(arguments, error, message):
    with pytest.raises(error, match=message):
        convert.from_onnx(*arguments)


@pytest.mark.parametrize(
    ("cell", "weights", "error", "message"),
    [
        ("gru", KERAS[0], TypeError, "weights: expected the list that .* got ndarray"),
        ("gru", "abc", TypeError, "weights: expected the list that .* got str"),
        ("gru", [], ValueError, "weights: expected kernel, recurrent_kernel .* got 0 arrays"),
        ("gru", [*KERAS, *KERAS[:2]], ValueError, "got 5 arrays"),
        ("lstm", KERAS, ValueError, r"weights\[1\]: expected shape \[H, 4 \* H\], .* \[4, 12\]"),
        (
            "gru",
            [KERAS[0][:, 1:], *KERAS[1:]],
            ValueError,
            r"weights\[0\]: expected shape \[I, 12\]",
        ),
        (
            "gru",
            [*KERAS[:2], KERAS[2][0]],
            ValueError,
            r"\[2, 12\], got \[12\]; .*reset_after=False",
        ),
        (
            "rnn",
            [np.ones((3, 4)), np.ones((4, 4)), np.ones(5)],
            ValueError,
            r"expected shape \[4\]",
        ),
        (
            "gru",
            [*KERAS, KERAS[0][1:], *KERAS[1:]],
            ValueError,
            r"weights\[3\]: expected shape \[3, 12\], as the first time, got \[2, 12\]",
        ),
        (
            "gru",
            [*KERAS, np.ones((3, 9), np.float32), np.ones((3, 9), np.float32), KERAS[2][:, :9]],
            ValueError,
            r"weights\[3\]: expected shape \[3, 12\], as the first time, got \[3, 9\]",
        ),
        (
            "gru",
            [*KERAS[:2], KERAS[2].astype(float)],
            TypeError,
            r"weights\[2\]: expected dtype fl",
        ),
    ],
)
def test_bad_keras(cell, weights, error, message):
    with pytest.raises(error, match=message):
        convert.from_keras(cell, weights)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (-1, ValueError, "an integer >= 0, got -1"),
        (1 << 20, ValueError, "an integer <= 1048575, got 1048576"),
        (1.0, TypeError, "an integer, got 1.0"),
    ],
)
def test_bad_layer(layer, error, message):
    for give in (lambda: convert.from_onnx("lstm", *ONNX, layer=layer),
                 lambda: convert.from_keras("gru", KERAS, layer=layer)):  # fmt: skip
        with pytest.raises(error, match=f"^layer: expected {message}$"):
            give()
