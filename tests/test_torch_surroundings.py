"""What code around a layer relies on: errors it looks for, tensors of inference mode."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import fastrnn.torch
from torch_support import LAYERS, bits, numbers


def gradients_of(layer, x, h):
    state = (h, h) if isinstance(layer, fastrnn.torch.LSTM) else h
    return torch.autograd.grad(layer(x, state)[0].sum(), list(layer.parameters()))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_features_of_inference_mode_train(name, batch_first):
    """what autograd cannot save is copied; torch's own layers do so with some"""
    layer = getattr(fastrnn.torch, name)(3, 20, batch_first=batch_first)
    x, h = numbers(4, 2, 3), numbers(1, 4 if batch_first else 2, 20)
    wanted = gradients_of(layer, x, h)
    with torch.inference_mode():
        x, h = x.clone(), h.clone()
    found = gradients_of(layer, x, h)
    assert all(bits(a) == bits(b) for a, b in zip(found, wanted, strict=True))


def test_no_memory_is_torchs_error(monkeypatch):
    """tools that look for the largest batch ask for it by these words"""
    layer = fastrnn.torch.GRU(3, 20)
    y = layer(numbers(4, 2, 3))[0].sum()

    def none(*_):
        raise MemoryError("out of memory: expected 819216384 bytes")

    monkeypatch.setitem(vars(layer._kernel), "native", SimpleNamespace(forward=none, backward=none))
    for call in (lambda: layer(numbers(4, 2, 3)), y.backward):
        with pytest.raises(RuntimeError, match="^DefaultCPUAllocator: can't allocate memory: out"):
            call()


@pytest.mark.parametrize("dropout", [-0.1, 1.5])
def test_a_dropout_that_was_set_later_is_torchs_error(dropout):
    for module in (torch.nn, fastrnn.torch):
        layer = module.GRU(3, 4, 2, dropout=0.5)
        layer.dropout = dropout
        with pytest.raises(RuntimeError, match="dropout probability has to be between 0 and 1"):
            layer(numbers(4, 2, 3))
