"""Single steps of few rows in fastrnn.torch: by weights where they lie, and nothing is packed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
import fastrnn.torch
from fastrnn import _threads
from torch_support import CELLS, LAYERS, bits, leaves, numbers

FLOATS = (torch.float32, torch.float64)
FEW = {"avx512": 4, "avx2": 2}  # rows that are multiplied with weights as they lie; others 1
MOST = 128  # more are packed in training, too


def of_numpy(layer):
    """fastrnn's layer of the same shape, with the same weights, which are packed"""
    options = {"nonlinearity": layer.nonlinearity} if layer.mode.startswith("RNN") else {}
    same = getattr(fastrnn, type(layer).__name__)(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        bias=layer.bias,
        bidirectional=layer.bidirectional,
        dtype=np.float64 if layer.weight_ih_l0.dtype is torch.float64 else np.float32,
        **options,
    )
    same.load_state_dict({name: w.numpy() for name, w in layer.state_dict().items()})
    y, _, tape = same.forward(np.zeros((2, 1, same.input_size), same.dtype))
    same.backward(tape, np.zeros_like(y))
    return same


def step_inputs(layer, rows, with_states):
    dtype = layer.weight_ih_l0.dtype
    sweeps = layer.num_layers * (1 + layer.bidirectional)
    x = numbers(1, rows, layer.input_size, dtype=dtype)
    if not with_states:
        return x, None
    h, c = numbers(2, sweeps, rows, layer.hidden_size, dtype=dtype)
    return x, (h, c) if layer.mode == "LSTM" else h


def as_arrays(hx):
    if hx is None:
        return None
    return tuple(t.numpy() for t in hx) if isinstance(hx, tuple) else hx.numpy()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_bits_are_those_of_packed_weights(data, isa):
    draw = data.draw
    name = draw(st.sampled_from(LAYERS))
    options = {"nonlinearity": draw(st.sampled_from(["tanh", "relu"]))} if name == "RNN" else {}
    layer = getattr(fastrnn.torch, name)(
        draw(st.sampled_from([1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 161])),
        draw(st.sampled_from([15, 16, 17, 20, 31, 32, 48, 63, 100, 112])),
        draw(st.integers(1, 3)),
        bias=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
        dtype=draw(st.sampled_from(FLOATS)),
        **options,
    )
    rows = draw(st.integers(0, 6))
    x, hx = step_inputs(layer, rows, draw(st.booleans()))
    with torch.inference_mode():
        found = leaves(layer(x, hx))
    expected = of_numpy(layer)(x.numpy(), as_arrays(hx))
    expected = [expected[0], *(expected[1] if name == "LSTM" else expected[1:])]
    for ours, theirs in zip(found, expected, strict=True):
        assert bits(ours) == bits(theirs)
    unpacked = layer.hidden_size >= 16 and 1 <= rows <= FEW.get(isa, 1)
    assert layer._kernel.packings == (not unpacked)


def gradients(layer, x, hx, results):
    """of x, the states and all weights, from ones at every result"""
    wanted = [x, *(leaves(hx) if hx is not None else ()), *layer.parameters()]
    return torch.autograd.grad(results, wanted, [torch.ones_like(r) for r in results])


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_training_has_the_bits_of_packed_weights_too(data, isa):
    draw = data.draw
    name = draw(st.sampled_from(LAYERS))
    layer = getattr(fastrnn.torch, name)(
        draw(st.sampled_from([1, 7, 16, 33, 161])),
        draw(st.sampled_from([15, 16, 20, 31, 63, 112])),
        draw(st.integers(1, 2)),
        bias=draw(st.booleans()),
        bidirectional=draw(st.booleans()),
        dtype=draw(st.sampled_from(FLOATS)),
    )
    rows = draw(st.integers(1, 9) | st.sampled_from([33, MOST, MOST + 1]))
    x, hx = step_inputs(layer, rows, draw(st.booleans()))
    for t in (x, *(leaves(hx) if hx is not None else ())):
        t.requires_grad_()
    found = leaves(layer(x, hx))
    grads = gradients(layer, x, hx, found)
    unpacked = layer.hidden_size >= 16 and rows <= MOST
    assert layer._kernel.packings == (not unpacked)
    arrays = of_numpy(layer)
    y, state, tape = arrays.forward(x.detach().numpy(), as_arrays(detached(hx)))
    ones = tuple(map(np.ones_like, state)) if name == "LSTM" else np.ones_like(state)
    g = arrays.backward(tape, np.ones_like(y), ones)
    states = [] if hx is None else [*g.state] if name == "LSTM" else [g.state]
    assert bits(found[0]) == bits(y)
    for ours, theirs in zip(grads, [g.input, *states, *g.weights.values()], strict=True):
        assert bits(ours) == bits(theirs)


def detached(hx):
    if hx is None:
        return None
    return tuple(t.detach() for t in hx) if isinstance(hx, tuple) else hx.detach()


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("name", CELLS)
def test_cells_train_without_packing(name, rows):
    torch.manual_seed(1)
    theirs, ours = (getattr(m, name)(5, 16) for m in (torch.nn, fastrnn.torch))
    ours.load_state_dict(theirs.state_dict())
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05) for m in (theirs, ours)]
    for step in range(4):
        for cell, optimizer in zip((theirs, ours), optimizers, strict=True):
            optimizer.zero_grad()
            state = None
            for t in range(3):
                state = cell(numbers(rows, 5) + t + step, state)
            sum(s.square().sum() / rows for s in leaves(state)).backward()
            optimizer.step()
        for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(a, b)
    assert ours._kernel.packings == 0


@pytest.mark.parametrize("name", CELLS)
def test_many_steps_of_many_rows_pack(name):
    """the fifth with the same weights; the passes back of those before read them where they lie"""
    torch.manual_seed(1)
    theirs, ours = (getattr(m, name)(5, 40) for m in (torch.nn, fastrnn.torch))
    ours.load_state_dict(theirs.state_dict())
    for pass_ in range(2):
        grads, packings = [], []
        for cell in (theirs, ours):
            x, state = numbers(7, 9, 5).requires_grad_(), None
            for row in x:
                state = cell(row, state)
                packings.append(cell is ours and cell._kernel.packings)
            h = sum(s.square().sum() for s in leaves(state))
            grads.append(torch.autograd.grad(h, (x, *cell.parameters())))
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)
        assert packings[7:] == [pass_] * 4 + [pass_ + 1] * 3
        with torch.no_grad():
            for w in (*theirs.parameters(), *ours.parameters()):
                w.mul_(1.25)


def test_a_graph_that_is_kept_and_second_derivatives():
    theirs, ours = (m.GRUCell(5, 16, dtype=torch.float64) for m in (torch.nn, fastrnn.torch))
    ours.load_state_dict(theirs.state_dict())
    found = []
    for cell in (theirs, ours):
        x = numbers(1, 5, dtype=torch.float64).requires_grad_()
        y = cell(x).square().sum()
        wanted = (x, *cell.parameters())
        once, again = (torch.autograd.grad(y, wanted, retain_graph=True) for _ in range(2))
        for a, b in zip(once, again, strict=True):
            assert torch.equal(a, b)
        (first,) = torch.autograd.grad(y, x, create_graph=True)
        found.append([*once, *torch.autograd.grad(first.square().sum(), wanted[:3])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    assert ours._kernel.packings == 0


def test_weights_that_change_before_the_pass_back():
    """as of torch's layers: in place it is an error, behind autograd's back the new ones count"""
    theirs, ours = (m.LSTMCell(5, 16) for m in (torch.nn, fastrnn.torch))
    ours.load_state_dict(theirs.state_dict())
    grads = []
    for cell in (theirs, ours):
        x = numbers(1, 5).requires_grad_()
        h, _ = cell(x)
        with torch.no_grad():
            cell.weight_ih.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            h.sum().backward()
        h, _ = cell(x)
        cell.weight_ih.data.mul_(2)
        h.sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


def test_other_weights_at_each_step():
    """the network of the last pass back is used again, for weights that lie elsewhere"""
    cell, x, kept = fastrnn.torch.GRUCell(5, 16), numbers(1, 5).requires_grad_(), []
    for scale in range(1, 4):
        kept.append({name: scale * w.detach() for name, w in cell.named_parameters()})
        own = fastrnn.torch.GRUCell(5, 16)
        own.load_state_dict(kept[-1])
        results = torch.func.functional_call(cell, kept[-1], (x,)), own(x)
        found, expected = (torch.autograd.grad(h.sum(), x)[0] for h in results)
        assert torch.equal(found, expected)


def test_only_what_is_wanted():
    cell = fastrnn.torch.LSTMCell(5, 16)
    x, (h, c) = numbers(1, 5), (numbers(1, 16), numbers(1, 16) + 1)
    every = gradients(
        cell, x.requires_grad_(), (h.requires_grad_(), c.requires_grad_()), leaves(cell(x, (h, c)))
    )
    for i, wanted in enumerate((x, h, c)):
        results = leaves(cell(x, (h, c)))
        (one,) = torch.autograd.grad(results, wanted, [torch.ones_like(r) for r in results])
        assert torch.equal(one, every[i])
    for w in cell.parameters():
        w.requires_grad_(False)
    results = leaves(cell(x, (h, c)))
    for one, same in zip(
        torch.autograd.grad(results, (x, h, c), [torch.ones_like(r) for r in results]),
        every,
        strict=False,
    ):
        assert torch.equal(one, same)


def test_the_operators_read_weights_where_they_lie_too():
    layer = fastrnn.torch.GRU(5, 16)
    x = numbers(1, 1, 5)
    y, hn = layer(x)
    expected = torch.autograd.grad(y.sum() + hn.sum(), tuple(layer.parameters()))
    arguments = (None, None, None, 1, None, 0, 0.0, None)
    weights = list(layer.parameters())
    y, hn, _ = torch.ops.fastrnn.recurrent(x, *arguments, weights, "gru", 1, True, False)
    found = torch.autograd.grad(y.sum() + hn.sum(), weights)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CELLS)
def test_weights_a_power_of_two_apart(name, dtype, rows, isa):
    cell = getattr(fastrnn.torch, name)(1024, 32, dtype=dtype)
    layer = getattr(fastrnn.torch, name.removesuffix("Cell"))(1024, 32, dtype=dtype)
    layer.load_state_dict({f"{k}_l0": w for k, w in cell.state_dict().items()})
    x = numbers(rows, 1024, dtype=dtype)
    with torch.no_grad():
        h = leaves(cell(x))[0]
    assert bits(h) == bits(of_numpy(layer)(x[None].numpy())[0][0])
    assert cell._kernel.packings == (rows > FEW.get(isa, 1))


def gapped(tensor):
    """the same values, with NaN between and behind them"""
    *shape, n = tensor.shape
    wide = torch.full((*[2 * s for s in shape], n + 3), torch.nan, dtype=tensor.dtype)
    view = wide[(*[slice(None, None, 2)] * len(shape), slice(1, n + 1))]
    return view.copy_(tensor)


@pytest.mark.parametrize("value", [0.5, -0.0, torch.inf, torch.nan, 1e-42, 3e38])
def test_layouts_strides_and_special_values(value, isa):
    layer = fastrnn.torch.LSTM(19, 37, 2, bidirectional=True)
    first = fastrnn.torch.LSTM(19, 37, 2, bidirectional=True, batch_first=True)
    strided = fastrnn.torch.LSTM(19, 37, 2, bidirectional=True)
    first.load_state_dict(layer.state_dict())
    for name, w in layer.named_parameters():
        strided.register_parameter(name, torch.nn.Parameter(gapped(w.detach())))
    x, (h, c) = step_inputs(layer, 2, True)
    x[0, 0, 5] = h[1, 1, 3] = c[2, 0, 36] = value
    with torch.no_grad():
        expected = layer(x, (h, c))
        given = gapped(x), (gapped(h), gapped(c))
        results = [layer(*given), strided(*given)]
        y, states = first(gapped(x.transpose(0, 1)), (h, c))
        results.append((y.transpose(0, 1), states))
        rows = [layer(x[:, i], (h[:, i], c[:, i])) for i in range(2)]  # unbatched
        results.append(
            (
                torch.stack([y for y, _ in rows], 1),
                tuple(torch.stack(s, 1) for s in zip(*[s for _, s in rows], strict=True)),
            )
        )
    arrays = of_numpy(layer)(x.numpy(), as_arrays((h, c)))
    for found in (expected, *results):
        for a, b in zip(leaves(found), (arrays[0], *arrays[1]), strict=True):
            assert bits(a) == bits(b)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_threads_share_the_units(bidirectional, threads, monkeypatch):
    layer = fastrnn.torch.LSTM(200, 144, 2, bidirectional=bidirectional)
    x, hx = step_inputs(layer, 2, True)
    expected = of_numpy(layer)(x.numpy(), as_arrays(hx))[0]
    monkeypatch.setattr(_threads, "default", threads)
    with torch.no_grad():
        assert bits(layer(x, hx)[0]) == bits(expected)


@pytest.mark.parametrize("name", CELLS)
def test_every_change_of_a_weight_counts(name):
    theirs, ours = (getattr(m, name)(5, 16) for m in (torch.nn, fastrnn.torch))
    x, h = numbers(1, 5), numbers(1, 16)
    hx = (h, h) if name == "LSTMCell" else h
    for change in (
        lambda w: w.data.mul_(2),
        lambda w: np.negative(w.detach().numpy(), out=w.detach().numpy()),
        lambda w: w.data.copy_(w.data.flip(0)),
    ):
        for w in ours.parameters():
            change(w)
        theirs.load_state_dict(ours.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(ours(x, hx), theirs(x, hx))
    assert ours._kernel.packings == 0


def test_tiny_biases_are_zero_as_in_packed_weights():
    """two denormal numbers, whose sum is none"""
    layer = fastrnn.torch.RNN(1, 16, nonlinearity="relu")
    tiny = float(np.finfo(np.float32).smallest_normal) * 0.75
    for name, w in layer.named_parameters():
        w.data.fill_(tiny if "bias" in name else 0)
    x = torch.ones(1, 1, 1)
    with torch.no_grad():
        assert layer(x)[0].abs().max() == 0
    assert abs(of_numpy(layer)(x.numpy())[0]).max() == 0


def test_a_state_may_be_the_input():
    cell = fastrnn.torch.LSTMCell(16, 16)
    x = numbers(2, 16)
    with torch.no_grad():
        h, c = cell(x, (x, x))
        expected = cell(x.clone(), (x.clone(), x.clone()))
    torch.testing.assert_close((h, c), expected, rtol=0, atol=0)
