"""Wrong arguments of calls: the right exception, its message with the argument, numbers, a hint."""

import numpy as np
import pytest

import fastrnn
from support import rejects

F32 = np.float32


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


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
    with pytest.raises(TypeError, match="^x: expected dtype float32, got complex64$"):  # no hint
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
