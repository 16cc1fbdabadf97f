"""Wrong arguments: the right exception, and a message with the argument, the numbers, a hint."""

import re

import numpy as np
import pytest

import fastrnn

F32 = np.float32


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


def rejects(exception, *parts):
    """the message holds these texts, in this order, the argument first"""
    return pytest.raises(exception, match="^" + ".*".join(map(re.escape, parts)))


@pytest.fixture
def lstm():
    return fastrnn.LSTM(8, 5, num_layers=2, seed=1)


@pytest.fixture
def gru():
    return fastrnn.GRU(8, 5, seed=1)


# the sequence


@pytest.mark.parametrize("shape", [(), (8,), (1, 2, 3, 8)])
def test_rank_of_x(lstm, shape):
    with rejects(ValueError, "x: expected shape [T, B, 8]", "got " + str(list(shape))):
        lstm(zeros(*shape))


@pytest.mark.parametrize("shape", [(7, 3, 9), (7, 9), (7, 3, 0), (8, 3, 7)])
def test_features_of_x(lstm, shape):
    with rejects(ValueError, "x: expected shape", "8]", "input_size=8", "got " + str(list(shape))):
        lstm(zeros(*shape))


def test_batch_first_is_named_in_the_expected_shape():
    with rejects(ValueError, "x: expected shape [B, T, 8]", "got [7, 3, 9]"):
        fastrnn.RNN(8, 5, batch_first=True)(zeros(7, 3, 9))


@pytest.mark.parametrize("method", ["__call__", "forward"])
def test_dtype_of_x(lstm, method):
    with rejects(TypeError, "x: expected", "float32", "got float64", "x.astype(np.float32)"):
        getattr(lstm, method)(zeros(7, 3, 8, dtype=np.float64))
    with rejects(TypeError, "x: expected", "float32", "got int64", "x.astype(np.float32)"):
        getattr(lstm, method)(zeros(7, 3, 8, dtype=np.int64))
    with rejects(TypeError, "x: expected", "float32", "got complex64"):
        getattr(lstm, method)(zeros(7, 3, 8, dtype=np.complex64))
    with rejects(TypeError, "x: expected", "float64", "got float32", "x.astype(np.float64)"):
        getattr(fastrnn.LSTM(8, 5, dtype=np.float64), method)(zeros(7, 3, 8))


@pytest.mark.parametrize("x", [None, [[0.0] * 8], "text", 3.5, object()])
def test_x_must_be_an_array(lstm, x):
    with rejects(TypeError, "x: expected", "got"):
        lstm(x)


def test_foreign_byte_order(lstm):
    with rejects(TypeError, "x: expected", "float32"):
        lstm(zeros(7, 3, 8, dtype=np.dtype(F32).newbyteorder()))


# the state


def test_layers_of_the_state(lstm):
    with rejects(ValueError, "h0: expected shape [2, 3, 5]", "got [1, 3, 5]"):
        lstm(zeros(7, 3, 8), (zeros(1, 3, 5), zeros(2, 3, 5)))
    with rejects(ValueError, "c0: expected shape [2, 3, 5]", "got [4, 3, 5]"):
        lstm(zeros(7, 3, 8), (zeros(2, 3, 5), zeros(4, 3, 5)))


def test_batch_and_size_of_the_state(gru):
    with rejects(ValueError, "h0: expected shape [1, 3, 5]", "got [1, 4, 5]"):
        gru(zeros(7, 3, 8), zeros(1, 4, 5))
    with rejects(ValueError, "h0: expected shape [1, 3, 5]", "got [1, 3, 6]"):
        gru(zeros(7, 3, 8), zeros(1, 3, 6))
    with rejects(ValueError, "h0: expected shape [1, 3, 5]", "got [1, 5]"):
        gru(zeros(7, 3, 8), zeros(1, 5))
    with rejects(ValueError, "h0: expected shape [1, 5]", "got [1, 1, 5]"):
        gru(zeros(7, 8), zeros(1, 1, 5))


def test_swapped_batch_axis_gets_a_hint(gru):
    with rejects(ValueError, "h0: expected shape [1, 3, 5]", "did you mean batch_first=True?"):
        gru(zeros(7, 3, 8), zeros(1, 7, 5))


@pytest.mark.parametrize(
    ("options", "x", "h0", "hint"),
    [
        ({}, (7, 3, 8), (2, 5), "; x has a batch axis: try h0[:, None, :]"),
        ({}, (7, 8), (2, 1, 5), "; x has no batch axis: try h0[:, 0]"),
        ({"batch_first": True}, (3, 7, 8), (3, 2, 5), "; the batch axis of a state is its second"),
        ({"batch_first": True}, (3, 7, 8), (2, 7, 5), "; did you mean batch_first=False?"),
        ({}, (8,), None, "; a single step is x[None, :]; to carry memory along, see stream()"),
        ({}, (8, 7), None, "; features are the last axis"),
        ({}, (7, 8, 3), None, "; features are the last axis"),
        ({}, (1, 2, 3, 8), None, "; more than one batch axis: reshape to one"),
    ],
)
def test_hints(options, x, h0, hint):
    layer = fastrnn.GRU(8, 5, num_layers=2, **options)
    with rejects(ValueError, "x" if h0 is None else "h0", ": expected shape", hint):
        layer(zeros(*x), None if h0 is None else zeros(*h0))


def test_projected_state_sizes():
    layer = fastrnn.LSTM(8, 5, proj_size=2)
    with rejects(ValueError, "h0: expected shape [1, 3, 2]", "proj_size = 2", "got [1, 3, 5]"):
        layer(zeros(7, 3, 8), (zeros(1, 3, 5), zeros(1, 3, 5)))
    with rejects(ValueError, "c0: expected shape [1, 3, 5]", "hidden_size = 5", "got [1, 3, 2]"):
        layer(zeros(7, 3, 8), (zeros(1, 3, 2), zeros(1, 3, 2)))


def test_kind_of_the_state(lstm, gru):
    for state in (zeros(2, 3, 5), (zeros(2, 3, 5),), 3 * (zeros(2, 3, 5),)):
        with rejects(TypeError, "state: expected a pair"):
            lstm(zeros(7, 3, 8), state)
    with rejects(TypeError, "h0: expected one array"):
        gru(zeros(7, 3, 8), (zeros(1, 3, 5), zeros(1, 3, 5)))


def test_dtype_of_the_state(lstm, gru):
    with rejects(TypeError, "c0: expected", "float32", "got float64", "c0.astype(np.float32)"):
        lstm(zeros(7, 3, 8), (zeros(2, 3, 5), zeros(2, 3, 5, dtype=np.float64)))
    with rejects(TypeError, "h0: expected", "float32", "got float64", "h0.astype(np.float32)"):
        gru(zeros(7, 3, 8), zeros(1, 3, 5, dtype=np.float64))


# lengths


def test_length_beyond_the_sequence(lstm):
    with rejects(ValueError, "lengths: expected", "0..", "7", "got 8"):
        lstm(zeros(7, 3, 8), lengths=[7, 8, 0])


def test_negative_length(lstm):
    with rejects(ValueError, "lengths: expected", "0..", "7", "got -1"):
        lstm(zeros(7, 3, 8), lengths=[7, -1, 0])
    with rejects(ValueError, "lengths: expected", "0.."):
        lstm(zeros(7, 3, 8), lengths=np.array([7, 2**63, 0], np.uint64))


def test_number_of_lengths(lstm):
    with rejects(ValueError, "lengths: expected shape [3]", "got [2]"):
        lstm(zeros(7, 3, 8), lengths=[7, 7])
    with rejects(ValueError, "lengths: expected shape [3]", "got [3, 1]"):
        lstm(zeros(7, 3, 8), lengths=np.ones((3, 1), np.int64))


def test_dtype_of_lengths(lstm):
    for lengths in ([7.0, 1.0, 0.0], np.array([True, True, False])):
        with rejects(TypeError, "lengths: expected an integer"):
            lstm(zeros(7, 3, 8), lengths=lengths)


@pytest.mark.parametrize("shape", [(7, 3, 8), (7, 8)])
def test_ragged_lengths(lstm, shape):
    with rejects(ValueError, "lengths: expected lists of equal lengths", "got [7, [2], 0]"):
        lstm(zeros(*shape), lengths=[7, [2], 0])


# backward


def test_shape_and_dtype_of_gradients(lstm):
    _, _, tape = lstm.forward(zeros(7, 3, 8))
    with rejects(ValueError, "dy: expected shape [7, 3, 5]", "got [7, 3, 4]"):
        lstm.backward(tape, zeros(7, 3, 4))
    with rejects(TypeError, "dy: expected", "float32", "got float64", "dy.astype(np.float32)"):
        lstm.backward(tape, zeros(7, 3, 5, dtype=np.float64))
    with rejects(ValueError, "dh: expected shape [2, 3, 5]", "got [1, 3, 5]"):
        lstm.backward(tape, None, (zeros(1, 3, 5), None))
    with rejects(ValueError, "dc: expected shape [2, 3, 5]", "got [2, 3, 6]"):
        lstm.backward(tape, None, (None, zeros(2, 3, 6)))
    with rejects(TypeError, "dstate: expected a pair"):
        lstm.backward(tape, None, zeros(2, 3, 5))


def test_no_gradient_at_all(lstm):
    _, _, tape = lstm.forward(zeros(7, 3, 8))
    for dstate in (None, (None, None)):
        with rejects(ValueError, "dy"):
            lstm.backward(tape, None, dstate)


def test_tape_of_another_layer(lstm):
    y, _, tape = lstm.forward(zeros(7, 3, 8))
    for other in (fastrnn.LSTM(8, 5, num_layers=2, seed=1), fastrnn.GRU(8, 5)):
        with rejects(ValueError, "tape: ", "another layer"):
            other.backward(tape, np.zeros_like(y))


def test_tape_after_the_weights_changed(lstm):
    y, _, tape = lstm.forward(zeros(7, 3, 8))
    lstm.load_state_dict(lstm.state_dict())
    with rejects(ValueError, "tape: ", "changed"):
        lstm.backward(tape, np.zeros_like(y))
    _, _, tape = lstm.forward(zeros(7, 3, 8))
    with lstm.edit():
        pass
    with rejects(ValueError, "tape: ", "changed"):
        lstm.backward(tape, np.zeros_like(y))


def test_tape_of_the_wrong_type(lstm):
    for tape in (None, zeros(3), lstm):
        with rejects(TypeError, "tape: expected"):
            lstm.backward(tape, zeros(7, 3, 5))


# constructors


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU])
class TestConstructors:
    @pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
    @pytest.mark.parametrize("value", [0, -3])
    def test_sizes(self, kind, name, value):
        with rejects(ValueError, f"{name}: expected an integer >= 1", f"got {value}"):
            kind(**({"input_size": 8, "hidden_size": 5} | {name: value}))

    @pytest.mark.parametrize("value", [2.0, "5", None, np.float32(3), True])
    def test_sizes_are_integers(self, kind, value):
        with rejects(TypeError, "hidden_size: expected an integer", "got"):
            kind(8, value)

    def test_integers_of_numpy_are_fine(self, kind):
        assert kind(np.int64(8), np.uint8(5)).hidden_size == 5

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.5])
    def test_dropout(self, kind, value):
        with rejects(ValueError, "dropout: expected", "[0, 1]", f"got {value}"):
            kind(8, 5, num_layers=2, dropout=value)

    def test_dropout_of_one_layer_warns(self, kind):
        with pytest.warns(UserWarning, match="dropout.*num_layers=1") as caught:
            kind(8, 5, dropout=0.5)
        assert [w.filename for w in caught] == [__file__], "whose line is to be changed"

    @pytest.mark.parametrize("value", [np.int32, np.float16, np.complex64, "text", None])
    def test_dtype(self, kind, value):
        with rejects(TypeError, "dtype: expected", "float32", "float64", "got"):
            kind(8, 5, dtype=value)

    @pytest.mark.parametrize("value", [0, -1])
    def test_threads(self, kind, value):
        with rejects(ValueError, "num_threads: expected an integer >= 1", f"got {value}"):
            kind(8, 5, num_threads=value)

    def test_seed(self, kind):
        with rejects(ValueError, "seed: expected", "got -1"):
            kind(8, 5, seed=-1)

    @pytest.mark.parametrize("name", ["bias", "batch_first", "bidirectional"])
    def test_flags(self, kind, name):
        with rejects(TypeError, f"{name}: expected", "got 3"):
            kind(8, 5, **{name: 3})


@pytest.mark.parametrize("value", [5, 6, -1])
def test_proj_size(value):
    with rejects(ValueError, "proj_size: expected", f"got {value}"):
        fastrnn.LSTM(8, 5, proj_size=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_forget_bias(value):
    with rejects(ValueError, "forget_bias: expected a finite number", f"got {value}"):
        fastrnn.LSTM(8, 5, forget_bias=value)


def test_forget_bias_needs_bias():
    with rejects(ValueError, "forget_bias: ", "bias=False"):
        fastrnn.LSTM(8, 5, bias=False, forget_bias=1.0)


def test_nonlinearity():
    with rejects(ValueError, "nonlinearity: expected", "'tanh'", "'relu'", "got 'sigmoid'"):
        fastrnn.RNN(8, 5, nonlinearity="sigmoid")


@pytest.mark.parametrize("value", [0, -2])
def test_set_num_threads(value):
    with rejects(ValueError, "n: expected an integer >= 1", f"got {value}"):
        fastrnn.set_num_threads(value)


def test_explain(gru):
    with rejects(ValueError, "T: expected", "got -1"):
        gru.explain(-1, 1)
    with rejects(TypeError, "B: expected an integer", "got 1.5"):
        gru.explain(1, 1.5)


# numbers that no C++ int holds, and sizes above the core's


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("n", fastrnn.set_num_threads),
        ("num_threads", lambda n: fastrnn.LSTM(2, 3, num_threads=n)),
        ("batch_size", lambda n: fastrnn.LSTM(2, 3).stream(n)),
        ("num_threads", lambda n: fastrnn.LSTM(2, 3).stream(1, num_threads=n)),
        ("capacity", lambda n: fastrnn.StreamPool(fastrnn.LSTM(2, 3), n)),
        ("T", lambda n: fastrnn.LSTM(2, 3).explain(n, 1)),
        ("input_size", lambda n: fastrnn.LSTM(n, 3)),
        ("hidden_size", lambda n: fastrnn.GRU(3, n)),
        ("num_layers", lambda n: fastrnn.RNN(3, 3, n)),
        ("in_features", lambda n: fastrnn.Linear(n, 3)),
        ("out_features", lambda n: fastrnn.Linear(3, n)),
    ],
)
def test_numbers_that_are_too_large(name, call):
    for n in (2**31, 2**70):
        with rejects(ValueError, f"{name}: expected an integer <= ", f"got {n}"):
            call(n)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("dropout", lambda n: fastrnn.LSTM(2, 3, dropout=n)),
        ("forget_bias", lambda n: fastrnn.LSTM(2, 3, forget_bias=n)),
        ("hidden_size", lambda n: fastrnn.LSTM(2, n)),
        ("lr", lambda n: fastrnn.optim.Adam(fastrnn.Linear(1, 1), lr=n)),
        ("momentum", lambda n: fastrnn.optim.SGD(fastrnn.Linear(1, 1), momentum=n)),
        ("betas[0]", lambda n: fastrnn.optim.Adam(fastrnn.Linear(1, 1), betas=(n, 0.9))),
        ("max_norm", lambda n: fastrnn.optim.clip_grad_norm_([], n)),
    ],
)
def test_numbers_that_no_float_holds(name, call):
    for n in (10**400, -(10**5000)):  # the second has more digits than Python shows
        with rejects(ValueError, f"{name}: expected ", f"got an integer of {n.bit_length()} bits"):
            call(n)


def test_a_forget_bias_that_its_dtype_does_not_hold():
    for value in (1e39, -1e300):
        with rejects(
            ValueError, "forget_bias: expected a number in [-3.40282e+38, ", f"got {value}"
        ):
            fastrnn.LSTM(2, 3, forget_bias=value)
    layer = fastrnn.LSTM(2, 3, forget_bias=1e300, dtype=np.float64)
    assert layer.parameters()["bias_ih_l0"][3] == 1e300


@pytest.mark.parametrize("make", [lambda n: fastrnn.LSTM(n, 1), lambda n: fastrnn.Linear(1, n)])
def test_sizes_above_the_cores(make):
    with rejects(ValueError, "", "expected an integer <= 1048576, got 1048577"):
        make(2**20 + 1)


@pytest.mark.parametrize("path", [3, None])
def test_paths(path, lstm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (fastrnn.load, fastrnn.load_tensors, lstm.save):
        with rejects(TypeError, "path: expected str", "os.PathLike", "got " + type(path).__name__):
            call(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_paths_that_name_no_file(path, lstm):
    for call in (fastrnn.load, fastrnn.load_tensors, lstm.save):
        with rejects(ValueError, f"path: expected the name of a file, got {path!r}"):
            call(path)


def test_a_path_in_bytes(lstm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for load in (fastrnn.load, fastrnn.load_tensors):
        with rejects(ValueError, "<bytes>: not a valid", "what a file holds, not its path"):
            load(b"lstm.safetensors")
    with rejects(TypeError, "path: expected str, os.PathLike[str] or a writable", "got bytes"):
        lstm.save(b"lstm.safetensors")
    assert not list(tmp_path.iterdir())


def test_modules_and_rates_of_optimizers(lstm):
    with rejects(TypeError, "modules: expected fastrnn layers, got NoneType"):
        fastrnn.optim.Adam(None)
    with rejects(ValueError, "modules: expected each once"):
        fastrnn.optim.SGD([lstm, lstm])
    assert fastrnn.optim.SGD({"lstm": lstm}.values(), 0.1).modules == (lstm,)
    optimizer = fastrnn.optim.SGD(lstm)
    before = lstm.state_dict()
    for lr, error in (("x", TypeError), (float("nan"), ValueError), (-1.0, ValueError)):
        optimizer.lr = lr
        with rejects(error, "lr: expected"):
            optimizer.step({name: np.ones_like(w) for name, w in before.items()})
    assert all((w == before[name]).all() for name, w in lstm.state_dict().items())
