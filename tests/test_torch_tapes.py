"""Tapes of the kernels: their size and memory; and how long the operators keep kernels."""

import pickle
from copy import deepcopy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import fastrnn.torch
from fastrnn._spec import CELLS
from fastrnn.torch import _cache
from fastrnn.torch._cache import _kernels, kernel_for
from fastrnn.torch._call import TIME, Call
from fastrnn.torch._kernel import Kernel
from torch_support import numbers, twins

T, B, I, H = 5, 3, 4, 6
KERNEL = Kernel("lstm", I, H, 1, True, False, 0)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_size_of_a_tape_is_what_the_operators_say(cell, layers, dropout, dtype):
    """torch.compile lays out memory by the fake operator's shapes"""
    for hidden, batch, proj in ((1, 1, 0), (6, 3, 0), (17, 5, 0), (17, 5, 3)):
        if proj and cell != "lstm":
            continue
        kernel = Kernel(cell, I, hidden, layers, True, True, proj)
        weights = [numbers(*shape, dtype=dtype) for shape in kernel.shapes]
        seed = torch.tensor([7])
        call = Call(TIME, batch, dropout, None, seed)
        reserve = kernel.forward(
            numbers(T, batch, I, dtype=dtype), None, None, weights, call, True
        )[3]
        size = kernel.reserve_size(T, batch, T * batch, dropout, reserve.element_size())
        assert reserve.shape == (size,)


@pytest.mark.parametrize(("steps", "hidden"), [(5, 6), (1, 16)])
def test_a_tape_that_is_too_short(steps, hidden):
    """of packed weights, and of a step that reads them where they lie"""
    kernel, call = Kernel("lstm", I, hidden, 1, True, False, 0), Call(TIME, 1, 0.0)
    weights, x = [numbers(*shape) for shape in kernel.shapes], numbers(steps, 1, I)
    y, _, _, reserve, lease = kernel.forward(x, None, None, weights, call, True)
    up, wanted = (y, None, None), (True, False, False, True)
    with pytest.raises(ValueError, match="^reserve: expected .* bytes, got "):
        kernel.backward(x, y, reserve[:-16], weights, call, up, wanted, lease)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_large_tape_comes_back_when_it_is_gone(dtype):
    steps, batch, hidden = 40, 32, 64  # 1.6 MB and more of tape
    kernel = Kernel("lstm", I, hidden, 1, True, False, 0)
    weights = [numbers(*shape, dtype=dtype) / 9 for shape in kernel.shapes]
    x, dy = numbers(steps, batch, I, dtype=dtype), numbers(steps, batch, hidden, dtype=dtype)
    call, wanted = Call(TIME, batch, 0.0), (True, False, False, True)

    def forward():
        y, _, _, reserve, lease = kernel.forward(x, None, None, weights, call, True)
        return y, reserve, lease

    def backward(y, reserve, lease):
        up = (dy, None, None)
        return kernel.backward(x, y, reserve, weights, call, up, wanted, lease)[:1]

    first, second = forward(), forward()  # two at once have one each
    tape = first[1]
    assert tape.dtype == dtype and tape.nbytes >= 3 << 19 and tape.data_ptr() % 64 == 0
    sizes = kernel.reserve_size(steps, batch, steps * batch, 0.0, tape.element_size())
    assert tape.shape == (sizes,)
    assert not tape.untyped_storage().resizable()  # memory of ours
    places = [t[1].data_ptr() for t in (first, second)]
    assert places[0] != places[1]
    (wanted_dx,) = backward(*second)
    (dx,) = backward(*first)
    assert torch.equal(dx, wanted_dx)
    copy, view = tape.clone(), tape[8:]
    del first, second, tape
    others = [forward() for _ in range(16)]  # as many as are kept at most
    found = {t[1].data_ptr() for t in others}
    assert places[1] in found and places[0] not in found  # which somebody still looks at
    assert torch.equal(view, copy[8:])
    for other in others:
        (dx,) = backward(*other)
        assert torch.equal(dx, wanted_dx)


def large_cells(dtype=torch.float32):
    """torch's and ours, whose gradients of weights have 1.5 MB and more"""
    return twins("GRUCell", 400, 400, dtype=dtype)


def backward(cell, x):
    cell(x, cell(x)).square().sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_gradients_are_the_users(dtype):
    theirs, ours = large_cells(dtype)
    x = numbers(3, 400, dtype=dtype)
    # eps: else gradients that are next to nothing but rounding would count by their sign.
    optimizers = [torch.optim.Adam(cell.parameters(), 1e-3, eps=1e-6) for cell in (theirs, ours)]
    close = dict(rtol=1e-9, atol=1e-9) if dtype == torch.float64 else dict(rtol=1e-4, atol=1e-4)
    for set_to_none in (True, False, True):
        for cell in (theirs, ours):
            backward(cell, x)
            backward(cell, x)  # adds to the first
            torch.nn.utils.clip_grad_norm_(cell.parameters(), 1.0)
        for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(b.grad, a.grad, **close)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(b, a, **close)


def test_large_gradients_come_back_when_they_are_gone():
    ours = large_cells()[1]
    x = numbers(3, 400)

    def place():
        ours.zero_grad()
        ours(x).sum().backward()
        grad = ours.weight_hh.grad
        assert not grad.untyped_storage().resizable() and grad.is_contiguous()  # memory of ours
        return grad.data_ptr()

    assert len({place() for _ in range(8)}) <= 2
    kept = ours.weight_ih.grad
    copy = kept.clone()
    for _ in range(5):
        place()
    assert torch.equal(kept, copy)  # nobody takes what somebody has


def test_gradients_push_no_tape_out():
    """sixteen large ones at once, and more than a hundred between two steps of a layer"""
    layer, deep, decoder = (
        fastrnn.torch.LSTM(16, 64),
        fastrnn.torch.LSTM(320, 320, 8),
        large_cells()[1],
    )
    x, x_deep, x_step = numbers(60, 64, 16), numbers(1, 2, 320), numbers(2, 400)

    def place():
        y = layer(x)[0]
        tape = next(t for t in y.grad_fn.saved_tensors if t is not None and t.dim() == 1)
        assert not tape.untyped_storage().resizable()
        y.sum().backward()
        return tape.data_ptr()

    first = place()
    for _ in range(2):
        deep(x_deep)[0].sum().backward()
        deep.zero_grad()
        h = x_step
        for _ in range(60):
            h = decoder(x_step, h)
        h.sum().backward()
        decoder.zero_grad()
        assert place() == first


def test_large_gradients_can_be_saved_copied_and_shared(tmp_path):
    ours = large_cells()[1]
    backward(ours, numbers(3, 400))
    grad = ours.weight_hh.grad
    copy = grad.clone()
    torch.save(grad, tmp_path / "grad.pt")
    assert torch.equal(torch.load(tmp_path / "grad.pt"), copy)
    assert torch.equal(copy, pickle.loads(pickle.dumps(grad)))
    assert torch.equal(copy, deepcopy(grad))
    grad.share_memory_()
    assert grad.is_shared() and torch.equal(grad, copy)


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_a_tape_may_come_back_at_another_place(cell):
    """hooks of saved tensors write them to files, and map those"""

    def elsewhere(tensor):
        past = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)[1:]
        return past.view(tensor.shape).copy_(tensor.detach())

    def gradients():
        y = layer(x)[0]
        return torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])

    layer = getattr(fastrnn.torch, cell)(4, 6)
    x = torch.randn(T, B, 4, requires_grad=True)
    wanted = gradients()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, elsewhere):
        moved = gradients()
    assert all(map(torch.equal, moved, wanted))


def test_kernels_of_operators_go_with_the_weights():
    options = "lstm", 1, True, False
    *sets, last = ([numbers(*shape) for shape in KERNEL.shapes] for _ in range(6))
    _kernels.clear()  # their weights may have lain where these lie
    for weights in sets:
        assert kernel_for(weights, *options) is kernel_for(weights, *options)
    assert len(_kernels) == 5
    del sets, weights
    kernel_for(last, *options)
    assert len(_kernels) == 1


def test_kernels_of_operators_are_not_kept_without_end(monkeypatch):
    """the one that was used longest ago goes"""
    monkeypatch.setattr(_cache, "_MOST", 3)
    options = "lstm", 1, True, False
    sets = [[numbers(*shape) for shape in KERNEL.shapes] for _ in range(4)]
    _kernels.clear()  # their weights may have lain where these lie
    kernels = [kernel_for(weights, *options) for weights in sets[:3]]
    kernel_for(sets[0], *options)
    kernel_for(sets[3], *options)
    assert len(_kernels) == 3
    assert [kernel_for(sets[i], *options) is kernels[i] for i in (0, 2, 1)] == [True, True, False]


def test_kernels_of_operators_go_with_any_of_the_weights():
    """As with weight_norm of weight_hh: a new tensor for each call, beside parameters that stay."""
    options = "lstm", 1, True, False
    first, _, *rest = weights = [numbers(*shape) for shape in KERNEL.shapes]
    places = np.ones((3, *KERNEL.shapes[1]), np.float32)

    def kernel_of(recurrent):
        return kernel_for([first, recurrent, *rest], *options)

    _kernels.clear()  # their weights may have lain where these lie
    held = list(map(torch.from_numpy, places))
    kernels = list(map(kernel_of, held))
    assert len(_kernels) == 3
    del held[1:]
    again = torch.from_numpy(places[1])  # a new tensor where one has lain: the kernel is its own
    assert kernel_of(again) is kernels[1]
    kernel_for(weights, *options)
    assert len(_kernels) == 3  # without the third
    assert [kernel_of(t) for t in (held[0], again)] == kernels[:2]
