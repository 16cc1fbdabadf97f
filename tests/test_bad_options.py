"""Wrong options of constructors, numbers and paths: messages as in test_bad_input.py."""

import numpy as np
import pytest

import fastrnn
from support import LAYERS, rejects

F32 = np.float32


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


@pytest.fixture
def lstm():
    return fastrnn.LSTM(8, 5, num_layers=2, seed=1)


@pytest.fixture
def gru():
    return fastrnn.GRU(8, 5, seed=1)


# constructors


@pytest.mark.parametrize("kind", LAYERS)
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

    @pytest.mark.parametrize("value", [np.int32, np.float16, np.complex64, "text", "(1,", None])
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


class Unable:
    """as a complex tensor of torch"""

    def __float__(self):
        raise RuntimeError("value cannot be converted")

    def __repr__(self):
        return "Unable()"


@pytest.mark.parametrize(
    "value", [True, "0.1", b"1", 0.5 + 1j, np.complex64(0.5 + 1j), np.timedelta64(0), Unable()]
)
def test_what_is_no_number(value):
    for name, call in (
        ("dropout", lambda: fastrnn.LSTM(8, 5, num_layers=2, dropout=value)),
        ("lr", lambda: fastrnn.optim.Adam(fastrnn.Linear(1, 1), lr=value)),
    ):
        with rejects(TypeError, f"{name}: expected a number", f"got {value!r}"):
            call()


@pytest.mark.parametrize("value", [np.True_, np.array(True), np.array([True])], ids=repr)
def test_bools_of_arrays_are_no_numbers(value):
    with rejects(TypeError, "hidden_size: expected an integer", "True"):
        fastrnn.LSTM(8, value)
    with rejects(TypeError, "lr: expected a number", "True"):
        fastrnn.optim.SGD(fastrnn.Linear(1, 1), lr=value)


def test_bools_of_torch_are_no_numbers():
    torch = pytest.importorskip("torch")
    with rejects(TypeError, "hidden_size: expected an integer", "got tensor(True)"):
        fastrnn.LSTM(8, torch.tensor(True))
    with rejects(TypeError, "dropout: expected a number", "got tensor(True)"):
        fastrnn.LSTM(8, 5, num_layers=2, dropout=torch.tensor(True))
    assert fastrnn.LSTM(8, torch.tensor(5)).hidden_size == 5


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
    with rejects(TypeError, "training: expected True or False", "got 1"):
        gru.explain(1, 1, 1)


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


def test_messages_stay_short(lstm):
    pool = fastrnn.StreamPool(lstm, 1)
    adam = fastrnn.optim.Adam(lstm)
    _, _, tape = lstm.forward(zeros(1, 1, 8))
    many = [1.5] * 10_000  # a whole block in a number's place
    for call in (
        lambda: fastrnn.LSTM(many, 5),
        lambda: fastrnn.LSTM(8, 5, bidirectional=many),
        lambda: fastrnn.LSTM(8, 5, dropout=many),
        lambda: fastrnn.LSTM(8, 5, dtype=many),
        lambda: fastrnn.optim.Adam(lstm, betas=many),
        lambda: fastrnn.optim.clip_grad_norm_([], many),
        lambda: lstm.backward(tape, zeros(1, 1, 5), input_grad=many),
        lambda: lstm.stream(many),
        lambda: pool.get_state(many),
        lambda: adam.load_state_dict({**adam.state_dict(), "steps": many}),
    ):
        with pytest.raises(TypeError, match=r": expected .*, got \[1\.5, 1\.5, ") as caught:
            call()
        assert len(str(caught.value)) < 150


def test_a_forget_bias_that_its_dtype_does_not_hold():
    for value in (1e39, -1e300):
        with rejects(
            ValueError, "forget_bias: expected a number in [-3.40282e+38, ", f"got {value}"
        ):
            fastrnn.LSTM(2, 3, forget_bias=value)
    layer = fastrnn.LSTM(2, 3, forget_bias=1e300, dtype=np.float64)
    assert layer.parameters()["bias_ih_l0"][3] == 1e300


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("input_size", lambda n: fastrnn.LSTM(n, 1)),
        ("hidden_size", lambda n: fastrnn.LSTM(1, n)),
        ("num_layers", lambda n: fastrnn.LSTM(1, 1, n)),
        ("proj_size", lambda n: fastrnn.LSTM(1, 1, proj_size=n)),
        ("out_features", lambda n: fastrnn.Linear(1, n)),
        ("batch_size", lambda n: fastrnn.GRU(2, 3).stream(n)),
        ("capacity", lambda n: fastrnn.StreamPool(fastrnn.GRU(2, 3), n)),
    ],
)
def test_sizes_above_the_cores(name, make):
    for n in (2**20 + 1, 2**40):  # the same limit, whatever came
        with rejects(ValueError, f"{name}: expected an integer <= 1048576, got {n}"):
            make(n)


@pytest.mark.parametrize("path", [3, None])
def test_paths(path, lstm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (fastrnn.load, fastrnn.load_tensors, lstm.save):
        with rejects(TypeError, "path: expected str", "os.PathLike", "got " + type(path).__name__):
            call(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800"])
def test_paths_that_name_no_file(path, lstm):
    for call in (fastrnn.load, fastrnn.load_tensors, fastrnn.load_metadata, lstm.save):
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
    with rejects(TypeError, "modules: expected fastrnn layers or dicts of arrays", "got NoneType"):
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
