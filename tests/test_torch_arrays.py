"""A state_dict of NumPy arrays, that of fastrnn's own layers, in modules of PyTorch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastrnn
import fastrnn.torch

LAYERS = ("RNN", "LSTM", "GRU")


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
