"""The C library inside the package computes the bits that Python computes, and reads its files."""

from pathlib import Path

import numpy as np
import pytest

import fastrnn

if not (Path(fastrnn.__file__).parent / "lib").is_dir():
    pytest.skip("this package was built without the C library", allow_module_level=True)

import c_library

CASES = {
    "rnn_tanh": lambda **k: fastrnn.RNN(3, 17, num_layers=2, **k),
    "rnn_relu": lambda **k: fastrnn.RNN(4, 9, nonlinearity="relu", bias=False, **k),
    "lstm": lambda **k: fastrnn.LSTM(5, 24, num_layers=2, proj_size=7, **k),
    "gru": lambda **k: fastrnn.GRU(7, 33, num_layers=2, **k),
}
each = pytest.mark.parametrize("cell", CASES)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def make(cell, dtype, **more):
    layer = CASES[cell](dtype=dtype, seed=3, **more)
    generator = np.random.default_rng(1)
    x = generator.standard_normal((9, 4, layer.input_size)).astype(dtype)
    return layer, x


@each
@dtypes
def test_sequence_and_stream(cell, dtype):
    layer, x = make(cell, dtype)
    y = np.asarray(layer(x)[0])
    ours = c_library.Layer(layer, cell)
    assert ours.run(x, y.shape[2]).tobytes() == y.tobytes()
    assert ours.stream(x, y.shape[2]).tobytes() == y.tobytes()


@each
@dtypes
def test_training(cell, dtype):
    layer, x = make(cell, dtype, bidirectional=True)
    lengths = np.array([9, 0, 4, 7], np.int64)
    y, _, tape = layer.forward(x, lengths=lengths)
    dy = np.random.default_rng(2).standard_normal(y.shape).astype(dtype)
    expected = layer.backward(tape, dy)
    dx, weights = c_library.Layer(layer, cell).gradients(x, dy, lengths)
    assert dx.tobytes() == expected.input.tobytes()
    assert list(weights) == list(expected.weights)
    for name, gradient in expected.weights.items():
        assert weights[name].tobytes() == gradient.tobytes(), name


def test_messages():
    layer, _ = make("gru", np.float32)
    ours = c_library.Layer(layer, "gru")
    with pytest.raises(ValueError, match="name: expected one of weight_ih_l0, .* got 'nonsense'"):
        c_library.call("fastrnn_layer_set", ours.handle, b"nonsense", b"....", 1)


@pytest.mark.skipif(not hasattr(fastrnn, "load"), reason="fastrnn.load is not in this build")
@each
@dtypes
def test_files_both_ways(cell, dtype, tmp_path):
    layer, x = make(cell, dtype)
    y = np.asarray(layer(x)[0])
    layer.save(tmp_path / "python.safetensors")
    assert c_library.load(tmp_path / "python.safetensors", dtype).run(x, y.shape[2]).tobytes() == (
        y.tobytes()
    )
    fastrnn.save(tmp_path / "many.safetensors", {"a": layer, "head": fastrnn.Linear(2, 1)})
    read = c_library.load(tmp_path / "many.safetensors", dtype, "a.")
    assert read.run(x, y.shape[2]).tobytes() == y.tobytes()
    c_library.Layer(layer, cell).save(tmp_path / "c.safetensors")
    back = fastrnn.load(tmp_path / "c.safetensors")
    assert np.asarray(back(x)[0]).tobytes() == y.tobytes()
    with pytest.raises(ValueError, match="expected dtype"):
        other = np.float64 if dtype is np.float32 else np.float32
        c_library.load(tmp_path / "python.safetensors", other)
