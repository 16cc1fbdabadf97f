"""Padded batches with `lengths` in fastrnn.torch: the results of packing, without it."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import fastrnn.torch
from fastrnn.torch import _modules
from torch_support import LAYERS, twins

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
)
LENGTHS = [4, 9, 1, 8, 8, 1]
STEPS = 9
SHAPE = r"lengths: expected shape \[3\] \(one length per batch row\)"


def by_packing(module, x, lengths, hx=None):
    first = module.batch_first
    y, state = module(pack_padded_sequence(x, lengths, first, enforce_sorted=False), hx)
    return pad_packed_sequence(y, first, total_length=x.shape[1 if first else 0])[0], state


def padded(module, x, lengths, hx=None):
    return module(x, hx, lengths=lengths)


def flat(result):
    y, state = result
    return [y, *state] if isinstance(state, tuple) else [y, state]


def with_gradients(outputs, wanted):
    generator = torch.Generator().manual_seed(0)
    dy = [torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in outputs]
    return [*outputs, *torch.autograd.grad(outputs, wanted, dy)]


def assert_all_close(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-12)


def states(name, layers, bidirectional, size, proj=0):
    parts, rows = layers * (1 + bidirectional), len(LENGTHS)
    h = torch.randn(parts, rows, proj or size, dtype=torch.float64, requires_grad=True)
    c = torch.randn(parts, rows, size, dtype=torch.float64, requires_grad=True)
    return ((h, c), [h, c]) if name == "LSTM" else (h, [h])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("layers", "proj"), [(1, 0), (2, 0), (2, 7)])
@pytest.mark.parametrize("name", LAYERS)
def test_as_torch_computes_it_with_packing(name, layers, proj, bidirectional, batch_first, isa):
    if proj and name != "LSTM":
        pytest.skip("proj_size is for LSTM")
    options = dict(bidirectional=bidirectional, batch_first=batch_first, dtype=torch.float64)
    options |= {"proj_size": proj} if proj else {}
    theirs, ours = twins(name, 5, 19, layers, **options)
    shape = (len(LENGTHS), STEPS, 5) if batch_first else (STEPS, len(LENGTHS), 5)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    hx, leaves = states(name, layers, bidirectional, 19, proj)
    results = []
    for module, way in ((theirs, by_packing), (ours, padded)):
        outputs = flat(way(module, x, torch.tensor(LENGTHS), hx))
        results.append(with_gradients(outputs, [x, *leaves, *module.parameters()]))
    assert_all_close(results[1], results[0])


@pytest.mark.parametrize("name", LAYERS)
def test_the_bits_are_those_of_packed_rows(name, fma_isa):
    layer = getattr(fastrnn.torch, name)(5, 33, 2, bidirectional=True)
    x, lengths = torch.randn(STEPS, len(LENGTHS), 5, requires_grad=True), torch.tensor(LENGTHS)
    a, b = (
        with_gradients(flat(way(layer, x, lengths)), [x, *layer.parameters()])
        for way in (padded, by_packing)
    )
    for one, other in zip(a, b, strict=True):
        assert one.detach().numpy().tobytes() == other.detach().numpy().tobytes()


def test_what_is_behind_the_end_is_neither_read_nor_left():
    layer = fastrnn.torch.LSTM(5, 8, bidirectional=True)
    x, lengths = torch.randn(STEPS, len(LENGTHS), 5), torch.tensor(LENGTHS)
    behind = torch.arange(STEPS)[:, None] >= lengths
    poisoned = x.masked_fill(behind[..., None], float("nan")).requires_grad_()
    y, (h, c) = layer(poisoned, lengths=lengths)
    (dx,) = torch.autograd.grad(y.sum() + h.sum() + c.sum(), poisoned)
    assert (y[behind] == 0).all() and (dx[behind] == 0).all()
    wanted, (h_wanted, _) = layer(x, lengths=lengths)
    assert torch.equal(y, wanted) and torch.equal(h, h_wanted)


@pytest.mark.parametrize("name", LAYERS)
def test_a_row_without_steps_keeps_its_state(name):
    layer = getattr(fastrnn.torch, name)(3, 4)
    x, h = torch.randn(2, 2, 3), torch.randn(1, 2, 4)
    y, state = layer(x, (h, h) if name == "LSTM" else h, lengths=[0, 2])
    for final in state if name == "LSTM" else (state,):
        assert torch.equal(final[:, 0], h[:, 0]) and not torch.equal(final[:, 1], h[:, 1])
    assert (y[:, 0] == 0).all()


@pytest.mark.parametrize(
    "given",
    [list, tuple, np.array, lambda n: np.array(n[::-1], ">i4")[::-1],
     lambda n: torch.tensor(n, dtype=torch.int32), lambda n: torch.tensor(n, dtype=torch.uint64),
     lambda n: np.array(n, ">u8"),
     lambda n: torch.tensor(n).repeat_interleave(2)[::2]],
)  # fmt: skip
def test_lengths_come_as_anything_with_integers(given):
    layer, x = fastrnn.torch.GRU(3, 4), torch.randn(STEPS, len(LENGTHS), 3)
    wanted = by_packing(layer, x, LENGTHS)[0]
    assert torch.equal(layer(x, lengths=given(LENGTHS))[0], wanted)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize(
    ("lengths", "error", "match"),
    [
        (
            [1, 2],
            ValueError,
            rf"{SHAPE}, got \[2\]",
        ),
        (
            [[1, 2, 3]],
            ValueError,
            rf"{SHAPE}, got \[1, 3\]",
        ),
        ([1, 2, 6], ValueError, r"lengths: expected values in 0..T = 5, got 6 at row 2"),
        ([1, -1, 5], ValueError, r"lengths: expected values in 0..T = 5, got -1 at row 1"),
        (np.array([1, 2**63, 3], ">u8"), ValueError, f"values <= {2**63 - 1}, got {2**63}"),
        (torch.tensor([2**64 - 1], dtype=torch.uint64), ValueError, f"lengths: .* got {2**64 - 1}"),
        ([1.0, 2.0, 3.0], TypeError, "lengths: expected integers, got torch.float32"),
        ([True, True, False], TypeError, "lengths: expected integers, got torch.bool"),
        ("123", TypeError, r"lengths: expected integers \[B\], got str"),
        (np.ma.masked_equal([1, 2, 3], 2), TypeError, "lengths: expected a plain array, got a mas"),
    ],
)
def test_bad_lengths(lengths, error, match, dropout):
    layer = fastrnn.torch.LSTM(3, 4, 2, dropout=dropout)
    with pytest.raises(error, match=match):
        layer(torch.zeros(5, 3, 3), lengths=lengths)


def test_lengths_without_values():
    layer, lengths = fastrnn.torch.LSTM(3, 4), torch.tensor([5, 1], device="meta")
    with pytest.raises(ValueError, match="lengths: expected values, got a tensor .* meta"):
        layer(torch.zeros(5, 2, 3), lengths=lengths)


def test_lengths_are_for_padded_batches():
    layer = fastrnn.torch.LSTM(3, 4)
    match = r"lengths: expected None, except for a padded batch \[T, B, input\]"
    with pytest.raises(ValueError, match=match):
        layer(torch.zeros(5, 3), lengths=[2])
    packed = PackedSequence(torch.zeros(3, 3), torch.tensor([2, 1]))
    with pytest.raises(ValueError, match=match):
        layer(packed, lengths=[2, 1])


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_lengths_may_change_before_backward(make):
    layer, lengths = fastrnn.torch.GRU(3, 4), make(LENGTHS)
    x = torch.randn(STEPS, len(LENGTHS), 3, requires_grad=True)
    (wanted,) = torch.autograd.grad(layer(x, lengths=LENGTHS)[0].sum(), x)
    y, _ = layer(x, lengths=lengths)
    lengths[:] = 9
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], wanted)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:fastrnn.torch. torch.nn.*own code runs:UserWarning")
def test_wrong_inputs_and_states_are_errors(name, dtype, packed):
    """torch does not look at those of a packed LSTM, and reads past them"""
    layer, rows = getattr(fastrnn.torch, name)(64, 128, dtype=dtype), 8
    x = torch.randn(50, rows, 64, dtype=dtype)
    zeros = functools.partial(torch.zeros, dtype=dtype)

    def call(x, h=None):
        hx = (h, h) if name == "LSTM" and h is not None else h
        n = [50] * x.shape[1]
        return layer(pack_padded_sequence(x, n), hx) if packed else layer(x, hx, lengths=n)

    call(x, zeros(1, rows, 128))
    for h in (zeros(1, rows, 256), zeros(1, rows, 8), zeros(2, rows, 128), zeros(1, rows + 1, 128)):
        with pytest.raises(RuntimeError, match="Expected hidden"):
            call(x, h)
    with pytest.raises(RuntimeError, match="input.size.-1. must be equal to input_size"):
        call(x[..., :16])
    with pytest.raises((RuntimeError, ValueError), match=r"[Ii]nput"):
        call(x.double())


@pytest.mark.parametrize(
    ("x", "hx"),
    [
        (torch.zeros(5, 2, 3, 1), None),
        (torch.zeros(0, 2, 3), None),
        ([[1.0]], None),
        (torch.zeros(5, 2, 3), (None, None)),
        (torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)),
        (torch.zeros(5, 2, 3).to_sparse(), None),
    ],
)
def test_what_torch_refuses_it_refuses_with_lengths_too(x, hx):
    layer, errors = fastrnn.torch.LSTM(3, 4), []
    for lengths in (None, [5, 2]):
        with pytest.raises(Exception) as refused:
            layer(x, hx, lengths=lengths)
        errors.append((refused.type, str(refused.value)))
    assert errors[0] == errors[1]


def test_torch_is_not_left_to_ignore_lengths():
    class Lenient(fastrnn.torch.LSTM):
        _torch = SimpleNamespace(forward=lambda *_: "computed")  # what torch's refuses

    layer, x = Lenient(3, 4), torch.zeros(5, 2, 3, 1)
    assert layer(x) == "computed"
    with pytest.raises(ValueError, match="^lengths: torch's own layer computes this call, and"):
        layer(x, lengths=[5, 2])


@pytest.mark.parametrize("lengths", [[5], [5, 6], [5, -1], [1, 2, 3]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:fastrnn.torch. torch.nn.*own code runs:UserWarning")
def test_lengths_are_checked_wherever_they_go(lengths, dtype):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="lengths: expected"):
        layer = fastrnn.torch.LSTM(3, 4, 2, dtype=dtype, dropout=0.5)
        torch.set_rng_state(state)
        layer(torch.zeros(5, 2, 3, dtype=dtype), lengths=lengths)
    assert torch.equal(torch.get_rng_state(), state)


def test_shapes_on_the_meta_device():
    layer = fastrnn.torch.LSTM(3, 4, device="meta")
    y, (h, _) = layer(torch.empty(5, 2, 3, device="meta"), lengths=[5, 0])
    assert y.shape == (5, 2, 4) and h.shape == (1, 2, 4)


def test_what_the_kernels_are_not_for_is_packed_for_torch(monkeypatch):
    monkeypatch.setattr(_modules, "_warned", set())
    theirs, ours = twins("LSTM", 3, 4, batch_first=True, dtype=torch.bfloat16)
    x, lengths = torch.randn(len(LENGTHS), STEPS, 3, dtype=torch.bfloat16), torch.tensor(LENGTHS)
    with pytest.warns(UserWarning, match="own code runs: weights of torch.bfloat16"):
        results = flat(padded(ours, x, lengths))
    assert all(map(torch.equal, results, flat(by_packing(theirs, x, lengths))))


def test_accelerated_layers_take_them():
    model = torch.nn.ModuleList([torch.nn.GRU(3, 4)])
    x, lengths = torch.randn(STEPS, len(LENGTHS), 3), torch.tensor(LENGTHS)
    wanted, _ = by_packing(model[0], x, lengths)
    fastrnn.torch.accelerate(model)
    torch.testing.assert_close(model[0](x, lengths=lengths)[0], wanted)


# ---- recorded


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_once_for_all_lengths(name):
    import torch._dynamo.testing

    torch._dynamo.reset()
    layer = getattr(fastrnn.torch, name)(3, 4, 2, bidirectional=True)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, backend=counter)
    x = torch.randn(STEPS, len(LENGTHS), 3, requires_grad=True)
    wanted = [x, *layer.parameters()]
    for lengths in (torch.tensor(LENGTHS), torch.tensor(LENGTHS[::-1])):
        a, b = (
            with_gradients(flat(call(x, lengths=lengths)), wanted) for call in (compiled, layer)
        )
        assert all(map(torch.equal, a, b))
    assert counter.frame_count == 1


def test_exported():
    layer, x = fastrnn.torch.LSTM(3, 4), torch.randn(STEPS, len(LENGTHS), 3)
    program = torch.export.export(layer, (x,), {"lengths": torch.tensor(LENGTHS)})
    for lengths in (torch.tensor(LENGTHS), torch.tensor(LENGTHS[::-1])):
        again, _ = program.module()(x, lengths=lengths)
        assert torch.equal(again, layer(x, lengths=lengths)[0])


def test_gradcheck():
    layer = fastrnn.torch.LSTM(2, 3, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)

    def run(x, *weights):
        return tuple(flat(layer(x, lengths=[2, 4, 0])))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning:torch")  # 2.14's
def test_opcheck():
    layer = fastrnn.torch.GRU(3, 4, dtype=torch.float64)
    x = torch.randn(STEPS, len(LENGTHS), 3, dtype=torch.float64, requires_grad=True)
    lengths, weights = torch.tensor(LENGTHS), list(layer.parameters())
    arguments = (x, None, None, None, 0, lengths, 0, 0.0, None, weights, "gru", 1, True, False)
    torch.library.opcheck(torch.ops.fastrnn.recurrent.default, arguments)


@pytest.mark.parametrize("lengths", [[2, 5], torch.tensor([2, 5])], ids=["list", "tensor"])
def test_lengths_lie_where_the_tensors_do(lengths):
    """whatever the default device is"""
    layer, x = fastrnn.torch.GRU(3, 4), torch.randn(5, 2, 3)
    wanted = layer(x, lengths=lengths)[0]
    with torch.device("meta"):
        assert torch.equal(layer(x, lengths=lengths)[0], wanted)
