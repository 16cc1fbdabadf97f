"""Modules of PyTorch as our layers: options, weights, results."""

import importlib
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn.convert import from_torch
from support import DTYPES, assert_same_bits, random

LAYERS = {
    "RNN": (fastrnn.RNN, [{}, {"nonlinearity": "relu", "bias": False, "batch_first": True}]),
    "LSTM": (fastrnn.LSTM, [dict(proj_size=2, bidirectional=True, num_layers=2), {"bias": False}]),
    "GRU": (fastrnn.GRU, [{"num_layers": 3, "dropout": 0.25, "batch_first": True}, {}]),
}
CELLS = {"RNNCell": {"nonlinearity": "relu"}, "LSTMCell": {}, "GRUCell": {"bias": False}}
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=["torch.nn", "fastrnn.torch"])
def package(request):
    pytest.importorskip("torch")
    return importlib.import_module(request.param)


def numpy_of(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def close(found, wanted, dtype):
    np.testing.assert_allclose(found, wanted.detach(), atol=2e-6 if dtype == "float32" else 1e-14)


@each_dtype
@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind, dtype, package):
    import torch

    ours, variants = LAYERS[kind]
    for options in variants:
        theirs = getattr(package, kind)(3, 5, dtype=getattr(torch, dtype), **options).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer = from_torch(theirs)
        assert type(layer) is ours
        assert repr(layer) == repr(ours(3, 5, dtype=dtype, **options))
        assert_same_bits(layer.state_dict(), numpy_of(theirs.state_dict()))
        x = random(4, 2, 3, dtype=dtype)
        close(layer(x)[0], theirs(torch.from_numpy(x))[0], dtype)
        with torch.no_grad():  # a copy, and of weights that can be changed
            next(theirs.parameters()).zero_()
        assert layer.parameters()["weight_ih_l0"].all()
        with layer.edit() as p:
            p["weight_ih_l0"] *= 2


@each_dtype
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind, dtype, package):
    """a step is a call with one step"""
    import torch

    theirs = getattr(package, kind)(3, 5, dtype=getattr(torch, dtype), **CELLS[kind])
    theirs.dropout = 0.5  # of a user's own
    layer = from_torch(theirs)
    assert repr(layer) == repr(LAYERS[kind[:-4]][0](3, 5, dtype=dtype, **CELLS[kind]))
    given = {f"{name}_l0": a for name, a in numpy_of(theirs.state_dict()).items()}
    assert_same_bits(layer.state_dict(), given)
    hx = state = None
    for t in range(3):
        x = random(2, 3, dtype=dtype, seed=t)
        hx = theirs(torch.from_numpy(x), hx)
        y, state = layer(x[None], state)
        h, hx_h = (state[0], hx[0]) if kind == "LSTMCell" else (state, hx)
        close(h[0], hx_h, dtype)
        assert y.tobytes() == h.tobytes()


@each_dtype
@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias, dtype, tmp_path):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Linear(3, 5, bias=bias, dtype=getattr(torch, dtype))
    with pytest.raises(TypeError, match="got .head.: Linear; fastrnn.convert.from_torch makes"):
        fastrnn.save(tmp_path / "f", {"head": theirs})
    layer = from_torch(theirs)
    assert repr(layer) == repr(fastrnn.Linear(3, 5, bias=bias, dtype=dtype))
    x = random(4, 3, dtype=dtype)
    close(layer(x), theirs(torch.from_numpy(x)), dtype)


def test_what_else_is_one():
    """subclasses, accelerated ones, and frozen, tied or transposed parameters"""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    mine = type("Mine", (nn.LSTM,), {})(2, 3)
    accelerated = nn.Sequential(nn.GRU(2, 3))
    fastrnn.torch.accelerate(accelerated)
    frozen = nn.Linear(2, 3).requires_grad_(False)
    tied = nn.RNN(3, 3)
    tied.weight_hh_l0 = tied.weight_ih_l0
    turned = nn.Linear(2, 3)
    turned.weight = nn.Parameter(torch.randn(2, 3).T)
    for module in (mine, accelerated[0], frozen, tied, turned):
        assert_same_bits(from_torch(module).state_dict(), numpy_of(module.state_dict()))
    layer = from_torch(tied)
    with layer.edit() as p:
        p["weight_hh_l0"][...] = 0
    assert layer.parameters()["weight_ih_l0"].all()


def test_the_mode_is_that_of_the_module():
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.GRU(2, 3), torch.nn.GRUCell(2, 3), torch.nn.Linear(2, 3))
    assert [from_torch(m).training for m in net] == [True] * 3
    assert [from_torch(m).training for m in net.eval()] == [False] * 3


def wrong_modules():
    from torch import nn, ones

    yield nn.Sequential(nn.LSTM(2, 3)), TypeError, "got torch.nn.modules.container.Sequential$"
    yield nn.LSTM, TypeError, "got builtins.type$"
    yield nn.LSTM(2, 3).state_dict(), TypeError, "got collections.OrderedDict$"
    yield nn.Embedding(2, 3), TypeError, "got torch.nn.modules.sparse.Embedding$"
    yield nn.Bilinear(2, 3, 4), TypeError, "got torch.nn.modules.linear.Bilinear$"
    yield fastrnn.LSTM(2, 3), TypeError, "got fastrnn.layers.LSTM$"
    short = r"weight_ih_l0: expected dtype float32 or float64, got {}; try module\.float\(\)"
    yield nn.LSTM(2, 3).half(), TypeError, short.format("float16")
    yield nn.LSTM(2, 3).bfloat16(), TypeError, short.format("bfloat16")
    elsewhere = nn.GRUCell(2, 3, device="meta")
    yield elsewhere, TypeError, "weight_ih: expected a tensor on the CPU, got one on meta; try mod"
    yield nn.LazyLinear(3), TypeError, "weight: cannot read this Uninit.*uninitialized parameter"
    mixed = nn.LSTM(2, 3)
    mixed.bias_hh_l0 = nn.Parameter(mixed.bias_hh_l0.double())
    yield mixed, ValueError, "bias_hh_l0: expected dtype float32, got float64"
    reshaped = nn.Linear(2, 3)
    reshaped.weight = nn.Parameter(ones(3, 4))
    yield reshaped, ValueError, r"weight: expected shape \[3, 2\], got \[3, 4\]"
    normed = nn.utils.parametrizations.weight_norm(nn.LSTM(2, 3), "weight_hh_l0")
    ends = r"; torch\.nn\.utils\.parametrize\.remove_parametrizations\(module, name\) ends those$"
    yield normed, ValueError, f"missing weight_hh_l0\n  unexpected parametrizations.*{ends}"
    extra = nn.Linear(2, 3)
    extra.register_buffer("more", ones(3))
    yield extra, ValueError, "unexpected more"
    large = nn.Linear(1, 1)
    large.in_features = 1 << 21
    yield large, ValueError, "in_features: expected an integer <= 1048576, got 2097152"


@pytest.mark.filterwarnings("ignore:.*Lazy modules")
def test_what_is_none():
    pytest.importorskip("torch")
    for module, error, message in wrong_modules():
        with pytest.raises(error, match=f"^(module: )?.*{message}"):
            from_torch(module)
    for module in (None, 3, "LSTM", np.zeros(3)):
        with pytest.raises(TypeError, match="^module: expected a module of torch.nn, one of RNN,"):
            from_torch(module)


def test_a_dtype_that_numpy_lacks_says_what_to_do():
    torch = pytest.importorskip("torch")
    state = torch.nn.Linear(2, 3).bfloat16().state_dict()
    with pytest.raises(ValueError, match=r"bfloat16 as an array: .*; try weight\.float\(\)\n"):
        fastrnn.Linear(2, 3).load_state_dict(state)


def test_tensors_of_another_dtype_name_the_method_that_tensors_have():
    torch = pytest.importorskip("torch")
    state = torch.nn.Linear(2, 3).half().state_dict()
    for dtype, method in (("float32", "float"), ("float64", "double")):
        expected = rf"weight: expected dtype {dtype}, got float16; try weight\.{method}\(\)\n"
        with pytest.raises(ValueError, match=expected):
            fastrnn.Linear(2, 3, dtype=dtype).load_state_dict(state)


def of_torch(kind, weights, **attributes):
    """as the class in torch.nn looks, without torch"""
    made = type(kind, (), attributes | {"__module__": "torch.nn.modules.any", "training": False})()
    made.state_dict = lambda: weights
    return made


def test_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    wanted = fastrnn.LSTM(2, 3, bidirectional=True, dtype=np.float64, seed=1).eval()
    options = dict(num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=True)
    sizes = dict(input_size=2, hidden_size=3, proj_size=0)
    layer = from_torch(of_torch("LSTM", wanted.state_dict(), **sizes, **options))
    assert repr(layer) == repr(wanted) and not layer.training
    assert_same_bits(layer.state_dict(), wanted.state_dict())
    cell = {name[:-3]: a for name, a in fastrnn.RNN(2, 3).state_dict().items()}
    given = dict(input_size=2, hidden_size=3, bias=True)
    assert repr(from_torch(of_torch("RNNCell", cell, **given, nonlinearity="relu"))) == (
        "RNN(2, 3, nonlinearity='relu')"
    )
    for change, message in (
        (dict(nonlinearity="sin"), "nonlinearity: expected 'tanh' or 'relu', got 'sin'"),
        (dict(nonlinearity="tanh", hidden_size=4), r"module: weight_ih_l0: expected shape \[4, 2"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            from_torch(of_torch("RNNCell", cell, **given | change))
    with pytest.raises(ValueError, match="^module: missing weight"):
        from_torch(of_torch("Linear", {}, in_features=1, out_features=1, bias=None))
    keras = type("LSTM", (), {"__module__": "keras.src.layers.rnn.lstm"})()
    with pytest.raises(TypeError, match=r"got keras.src.layers.rnn.lstm.LSTM$"):
        from_torch(keras)


def test_torch_is_not_imported():
    code = "import sys, fastrnn; fastrnn.convert.from_torch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
