"""A state_dict of NumPy arrays, that of fastrnn's own layers, in modules of PyTorch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastrnn
import fastrnn.torch
from torch_support import CELLS, LAYERS


def problem(name):
    options = dict(num_layers=2, bidirectional=True)
    layer = getattr(fastrnn, name)(3, 4, **options)
    module = getattr(torch.nn, name)(3, 4, **options)
    fastrnn.torch.accelerate(module)
    x = torch.randn(5, 2, 3)
    return layer, module, x, layer(x.numpy())[0]


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_modules_of_ours_take_arrays(name, nested, assign):
    layer, module, x, wanted = problem(name)
    model, prefix = (torch.nn.Sequential(module), "0.") if nested else (module, "")
    state = {prefix + name: value.copy() for name, value in layer.state_dict().items()}
    model.load_state_dict(state, assign=assign)
    for value in state.values():
        value[:] = 7  # an array, and the caller's still
    assert np.array_equal(module(x)[0].detach(), wanted)
    state.popitem()
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(state)


def test_arrays_that_no_tensor_can_share():
    layer, module, x, wanted = problem("GRU")
    state = {name: np.flip(np.flip(v).copy()) for name, v in layer.state_dict().items()}
    for value in state.values():
        value.flags.writeable = False
    module.load_state_dict(state)
    assert np.array_equal(module(x)[0].detach(), wanted)


@pytest.mark.parametrize("name", CELLS)
def test_cells_take_arrays(name):
    cell, theirs = getattr(fastrnn.torch, name)(3, 4), getattr(torch.nn, name)(3, 4)
    state = {name: value.numpy().copy() for name, value in theirs.state_dict().items()}
    cell.load_state_dict(state)
    for name, value in theirs.state_dict().items():
        assert torch.equal(cell.state_dict()[name], value)
    state["weight_hh"] = np.ma.masked_less(state["weight_hh"], 0)
    with pytest.raises(TypeError, match="^weight_hh: expected a plain array, got a masked one"):
        cell.load_state_dict(state)


def test_arrays_of_foreign_byte_order():
    layer, module, x, wanted = problem("GRU")
    state = layer.state_dict().items()
    module.load_state_dict({name: v.astype(v.dtype.newbyteorder("S")) for name, v in state})
    assert np.array_equal(module(x)[0].detach(), wanted)


def test_a_dtype_that_torch_has_not_is_named():
    module = fastrnn.torch.GRUCell(3, 4)
    state = module.state_dict() | {"weight_hh": np.zeros((12, 4), object)}
    with pytest.raises(TypeError, match="^weight_hh: can't convert .*object"):
        module.load_state_dict(state)


def test_masked_arrays_are_refused():
    layer, module, x, _ = problem("LSTM")
    before = module(x)[0]
    state = dict(layer.state_dict())
    state["weight_hh_l1"] = np.ma.masked_less(state["weight_hh_l1"], 0)
    with pytest.raises(TypeError, match="^weight_hh_l1: expected a plain array, got a masked one"):
        module.load_state_dict(state)
    assert torch.equal(module(x)[0], before)
