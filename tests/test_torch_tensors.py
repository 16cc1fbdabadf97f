"""How the core reads tensors: by the table of DLPack, by attributes where torch is old."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import fastrnn.torch
from fastrnn import _core
from fastrnn._spec import CELLS
from fastrnn.torch._call import BATCH, PACKED, STEP, TIME, UNBATCHED, Call
from fastrnn.torch._kernel import Kernel
from torch_support import LAYERS, leaves, numbers, twins

T, B, I, H = 5, 3, 4, 6
NAN = float("nan")


@pytest.fixture(params=[True, False], ids=["table", "attributes"])
def by_table(request):
    if request.param and not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip("this torch has no such table")
    _core.use_tensors(torch.Tensor, request.param)
    yield request.param
    _core.use_tensors(torch.Tensor, True)


def apart(x):
    """the same values with gaps: NaN where nobody may read"""
    wide = torch.full((*x.shape, 2), NAN, dtype=x.dtype)
    wide[..., 0] = x
    return wide[..., 0]


def negative(x):
    """the same values, whose memory holds their negatives: what imag of a conjugate is"""
    view = torch._neg_view(-x)
    assert view.is_neg() and view.is_contiguous() and torch.equal(view, x)
    return view


def both_passes(kernel, x, states, weights, call, dy, form_y=lambda y: y):
    y, hn, cn, reserve, lease = kernel.forward(x, *states, weights, call, True)
    plain = kernel.forward(x, *states, weights, call, False)
    assert torch.equal(plain[0], y) and plain[3] is plain[4] is None
    wanted = (True, True, states[1] is not None, True)
    read = form_y(y)  # what hooks of saved tensors make of it
    grads = kernel.backward(x, read, reserve, weights, call, (dy, None, None), wanted, lease)
    again = kernel.backward(x, read, reserve, weights, call, (dy, None, None), wanted)
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(grads, again, strict=True))
    return [t for t in (y, hn, cn, *grads) if t is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [TIME, BATCH, UNBATCHED, STEP, PACKED])
@pytest.mark.parametrize("cell", CELLS)
def test_how_tensors_hold_their_values_changes_nothing(cell, layout, dtype, by_table):
    kernel = Kernel(cell, I, H, 1, True, False, 0)
    weights = [numbers(*shape, dtype=dtype) / 3 for shape in kernel.shapes]
    shape = {TIME: (T, B), BATCH: (B, T), UNBATCHED: (T,), STEP: (B,), PACKED: (9,)}[layout]
    sizes = torch.tensor([B, B, 2, 1]) if layout == PACKED else None
    call = Call(layout, B, 0.0, sizes)
    h = numbers(*kernel.state_shape(B, layout, H), dtype=dtype)
    states = (h, h.flip(-1)) if kernel.has_c else (h, None)
    x, dy = numbers(*shape, I, dtype=dtype), numbers(*shape, H, dtype=dtype)
    wanted = both_passes(kernel, x, states, weights, call, dy)
    for form, form_y in ((apart, torch.clone), (negative, negative)):  # y may have no gaps
        formed = [None if s is None else form(s) for s in states], [form(w) for w in weights]
        got = both_passes(kernel, form(x), *formed, call, form(dy), form_y)
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            assert a.is_contiguous() and a.dtype == dtype and torch.equal(a, b)
    if layout in (TIME, BATCH):  # the other order of the first two axes, without a copy
        turned = x.transpose(0, 1).contiguous().transpose(0, 1)
        assert torch.equal(kernel.forward(turned, *states, weights, call, False)[0], wanted[0])


def test_a_part_of_a_conjugate(by_table):
    """torch negates it where it is read; with one feature its strides look like anybody's"""
    layer = fastrnn.torch.LSTM(1, H)
    x = torch.randn(T, B, 1, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    assert torch.equal(layer(x)[0], layer(x.clone().resolve_neg())[0])


def test_zeros_that_torch_has_not_written_down(by_table):
    """they have no memory; torch.nn takes them"""
    kernel = Kernel("lstm", I, H, 1, True, False, 0)
    weights = [numbers(*shape) for shape in kernel.shapes]
    results = []
    for zeros in (torch.zeros, lambda *size: torch._efficientzerotensor(size)):
        x, h, dy = zeros(T, B, I), zeros(1, B, H), zeros(T, B, H)
        results.append(both_passes(kernel, x, (h, h), weights, Call(TIME, B, 0.0), dy))
        y = zeros(T, B, H)
        for states, form_y in (((h, None), torch.clone), ((h, h), lambda _, y=y: y)):
            call = Call(TIME, B, 0.0)
            results[-1] += both_passes(kernel, x, states, weights, call, dy, form_y)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


KERNEL = Kernel("lstm", I, H, 1, True, False, 0)


def arguments():
    return {
        "x": numbers(T, B, I), "h0": numbers(1, B, H), "c0": numbers(1, B, H),
        "weights": [numbers(*shape) for shape in KERNEL.shapes],
        "layout": TIME, "batch": B, "dropout": 0.0, "sizes": None, "seed": None,
    }  # fmt: skip


def run(a, keep=False):
    call = Call(a["layout"], a["batch"], a["dropout"], a["sizes"], a["seed"])
    return KERNEL.forward(a["x"], a["h0"], a["c0"], a["weights"], call, keep)


def second(weight):
    return lambda a: {"weights": [a["weights"][0], weight, *a["weights"][2:]]}


WRONG = [
    ({"x": None}, TypeError, "input: expected a torch.Tensor, got NoneType"),
    ({"x": np.zeros((T, B, I), np.float32)}, TypeError, "input: expected a torch.Tensor, got nd"),
    ({"x": torch.zeros(T, B, I).to_sparse()}, ValueError, "input: expected a strided tensor of"),
    ({"x": torch.zeros(T, B, I, device="meta")}, ValueError, "input: expected .* of the CPU"),
    ({"x": torch.zeros(T, B, I).half()}, TypeError, "input: expected torch.float32 or .*float16"),
    ({"x": torch.zeros(T, B, I, dtype=torch.cfloat)}, TypeError, "input: .* got torch.complex64"),
    ({"x": torch.zeros(I)}, ValueError, r"input: expected 3 axes, the last 4, got \[4\]"),
    ({"x": torch.zeros(())}, ValueError, r"input: expected 3 axes, the last 4, got \[\]"),
    ({"x": torch.zeros(1, 1, 2, 2, T, I)}, ValueError, "input: expected 3 axes, the last 4, got"),
    ({"x": torch.zeros(T, B, I + 1)}, ValueError, "input: expected 3 axes, the last 4, got"),
    ({"x": torch.zeros(2**31, 0, I)}, ValueError, "input: expected at most T = 2147483647"),
    ({"x": torch.zeros(0, 2**28 + 1, I)}, ValueError, "input: .*, got T = 0, B = 268435457"),
    ({"h0": 3.0}, TypeError, "h0: expected a torch.Tensor, got float"),
    ({"h0": torch.zeros(1, B, H + 1)}, ValueError, r"h0: expected shape \[1, 3, 6\], got \[1, 3"),
    ({"h0": torch.zeros(B, H)}, ValueError, r"h0: expected shape \[1, 3, 6\], got \[3, 6\]"),
    ({"c0": torch.zeros(1, B, H).double()}, TypeError, "c0: expected dtype torch.float32, got"),
    (second(None), TypeError, r"weights\[1\]: expected"),
    (second(torch.zeros(4 * H, I)), ValueError, r"weights\[1\]: expected shape \[24, 6\], got"),
    (second(torch.zeros(4 * H, H).double()), TypeError, r"weights\[1\]: expected dtype"),
    (second(torch.zeros(4 * H, H, device="meta")), ValueError, r"weights\[1\]: expected"),
    ({"weights": []}, ValueError, "weights: expected 4, got 0"),
    ({"layout": -1}, ValueError, "layout: expected 0 to 4, got -1"),
    ({"dropout": NAN}, ValueError, "dropout: expected a number from 0 to 1, got nan"),
    ({"dropout": 0.5, "seed": torch.zeros(2, dtype=torch.int64)}, ValueError, "seed: expected sh"),
    ({"dropout": 0.5, "seed": torch.zeros(1)}, TypeError, "seed: expected dtype torch.int64"),
    ({"layout": PACKED}, ValueError, "batch_sizes: expected with .* got NoneType with layout 4"),
    ({"sizes": torch.tensor([1])}, ValueError, "batch_sizes: expected .* got Tensor with layout 0"),
]


@pytest.mark.parametrize("cell", ["gru", "rnn_relu"])
def test_only_an_lstm_has_a_cell_state(cell, by_table):
    kernel, state = Kernel(cell, I, H, 1, True, False, 0), numbers(1, B, H)
    x, weights = numbers(T, B, I), [numbers(*shape) for shape in kernel.shapes]
    call, none = Call(TIME, B, 0.0), (True, True, False, True)
    with pytest.raises(ValueError, match="^c0: expected None, only an LSTM has a cell state"):
        kernel.forward(x, state, state, weights, call, True)
    y, _, cn, reserve, _ = kernel.forward(x, state, None, weights, call, True)
    assert cn is None
    with pytest.raises(ValueError, match="^dc: expected None, only an LSTM has a cell state"):
        kernel.backward(x, y, reserve, weights, call, (y, None, state), none)
    with pytest.raises(ValueError, match=r"^wanted\[2\]: expected False, only an LSTM has"):
        kernel.backward(x, y, reserve, weights, call, (y, None, None), (True,) * 4)
    assert kernel.backward(x, y, reserve, weights, call, (y, None, None), none)[2] is None


@pytest.mark.parametrize(("change", "error", "match"), WRONG)
def test_what_is_wrong_is_named(change, error, match, by_table):
    good = arguments()
    with pytest.raises(error, match=match):
        run(good | (change(good) if callable(change) else change))
    assert run(good)[0].shape == (T, B, H)


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        (torch.tensor([3, 2, 3]), "expected values from 3 downwards to 1, got 3 at step 2"),
        (torch.tensor([3, 3, 0]), "got 0 at step 2"),
        (torch.tensor([3, 3]), "expected a sum of 8, the rows of data, got 6"),
        (torch.tensor([0, 0]), "expected values of at least 1, got 0 at step 0"),
        (torch.tensor([2**40, 3]), "expected a sum of 8"),
        (
            torch.tensor([2**31 - 1, 3]),
            "a sum of 8, the rows of data, got more: 2147483647 at step 0",
        ),
        (torch.tensor([2**62, 2**62]), "a sum of 8, .* got more: 4611686018427387904 at step 0"),
        (torch.tensor([3, 3, 3]), "got more: 3 at step 2 after a sum of 6"),
        (torch.tensor([], dtype=torch.int64), "expected a contiguous tensor of at least one step"),
        (torch.tensor([[3, 3, 2]]), "expected shape"),
        (torch.tensor([3, 0, 3, 0, 2, 0])[::2], "expected a contiguous tensor"),
        (torch.tensor([3, 3, 2], dtype=torch.int32), "expected dtype torch.int64"),
    ],
)
def test_sizes_of_packed_rows(sizes, match, by_table):
    error = TypeError if sizes.dtype is torch.int32 else ValueError
    packed = arguments() | {"h0": None, "c0": None, "x": numbers(8, I), "layout": PACKED}
    with pytest.raises(error, match=match):
        run(packed | {"sizes": sizes, "batch": -1})
    assert run(packed | {"sizes": torch.tensor([3, 3, 2])})[0].shape == (8, H)


def test_the_batch_of_packed_rows_is_the_first_of_their_sizes(by_table):
    """whoever gave a larger one got rows that never lived"""
    packed = {"h0": None, "c0": None, "x": numbers(8, I), "layout": PACKED}
    packed = arguments() | packed | {"sizes": torch.tensor([2, 2, 2, 2])}
    for batch in (2, -1):
        assert run(packed | {"batch": batch})[1].shape == (1, 2, H)
    for batch in (3, 1, 0):
        message = f"batch: expected 2, the first of batch_sizes, or -1, got {batch}"
        with pytest.raises(ValueError, match=message):
            run(packed | {"batch": batch})


def test_backward_refuses_what_forward_did_not_give(by_table):
    a = arguments()
    call = Call(TIME, B, 0.0)
    y, _, _, reserve, lease = run(a, keep=True)
    wanted = (True, True, True, True)

    def back(**change):
        b = {
            "x": a["x"],
            "y": y,
            "reserve": reserve,
            "up": (y, None, None),
            "lease": lease,
        } | change
        return KERNEL.backward(
            b["x"], b["y"], b["reserve"], a["weights"], call, b["up"], wanted, b["lease"]
        )

    assert all(g is not None for g in back())
    shifted = torch.zeros(2 * reserve.shape[0] + 1)[1:].view(torch.int32)
    for change, error, match in (
        ({"y": y[1:]}, ValueError, r"output: expected shape \[5, 3, 6\]"),
        ({"y": apart(y)}, ValueError, "output: expected what forward returned"),
        ({"up": (y[1:], None, None)}, ValueError, "dy: expected shape"),
        ({"up": (None, y, None)}, ValueError, "dh: expected shape"),
        ({"up": (None, None, 1)}, TypeError, "dc: expected a torch.Tensor, got int"),
        ({"reserve": reserve[:-1]}, ValueError, "reserve: expected .* bytes"),
        ({"reserve": shifted}, ValueError, "reserve: expected .* bytes, got .* no multiple of 64"),
        ({"x": a["x"].double()}, TypeError, "output: expected dtype torch.float64"),
    ):
        with pytest.raises(error, match=match):
            back(**change)
    double = [w.double() for w in a["weights"]]
    other = KERNEL.forward(a["x"].double(), None, None, double, call, True)[4]
    mine = r"^lease: expected that of a pass forward of lstm\(4, 6\) in float32, got that of "
    with pytest.raises(ValueError, match=mine + r"lstm\(4, 6\) in float64"):
        back(lease=other)
    for options in (
        ("gru", I, H, 1, True, False, 0),
        ("lstm", I, H + 1, 1, True, False, 0),  # whose packed weights are as long
        ("lstm", I, H, 1, False, False, 0),
        ("lstm", 2 * I, 2 * H, 2, True, True, 3),
    ):
        kernel = Kernel(*options)
        others = [numbers(*shape) for shape in kernel.shapes]
        other = kernel.forward(numbers(T, B, options[1]), None, None, others, call, True)[4]
        cell, inputs, hidden, *_ = options
        with pytest.raises(ValueError, match=mine + rf"{cell}\({inputs}, {hidden}[,)]"):
            back(lease=other)
    with pytest.raises(ValueError, match=r"num_layers=2, bidirectional=True, proj_size=3\) in fl"):
        back(lease=other)
    with pytest.raises(RuntimeError, match="^lease: was never initialised"):
        back(lease=_core.Lease.__new__(_core.Lease))


@pytest.mark.parametrize("layout", [TIME, BATCH, UNBATCHED, STEP, PACKED])
@pytest.mark.parametrize("cell", CELLS)
def test_backward_does_without_the_output_of_a_step_alone(cell, layout):
    """of cells that save their gates; elsewhere it is read, and None would be nowhere"""
    kernel = Kernel(cell, I, H, 1, True, False, 0)
    weights = [numbers(*shape) / 3 for shape in kernel.shapes]
    shape = {TIME: (T, B), BATCH: (B, T), UNBATCHED: (T,), STEP: (B,), PACKED: (9,)}[layout]
    call = Call(layout, B, 0.0, torch.tensor([B, B, 2, 1]) if layout == PACKED else None)
    x = numbers(*shape, I)
    y, _, _, reserve, _ = kernel.forward(x, None, None, weights, call, True)

    def back(y):
        up, wanted = (torch.ones(*shape, H), None, None), (True, False, False, True)
        return kernel.backward(x, y, reserve, weights, call, up, wanted)

    if layout == STEP and not kernel.reads_step:
        for a, b in zip(back(None), back(y), strict=True):
            assert a is b is None or torch.equal(a, b)
    else:
        with pytest.raises(TypeError, match="output: expected a torch.Tensor, got NoneType"):
            back(None)


def test_use_tensors_wants_a_class():
    with pytest.raises(TypeError, match="tensor_class"):
        _core.use_tensors(torch.zeros(1), True)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layout", [PACKED, TIME, UNBATCHED])
@pytest.mark.parametrize("name", LAYERS)
def test_results_lie_as_those_of_torch(name, layout, batch_first, grad):
    """but for the y of padded rows where the batch comes first"""
    modules = twins(name, I, H, num_layers=2, bidirectional=True, batch_first=batch_first)
    x = numbers(*((T, I) if layout == UNBATCHED else (B, T, I) if batch_first else (T, B, I)))
    if layout == PACKED:
        lengths = [T, T, T - 2] if batch_first else [T, T - 1, 2]
        x = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first)
    with torch.set_grad_enabled(grad):
        theirs, ours = (leaves(module(x)) for module in modules)
    if layout == TIME and batch_first:
        rows = 2 * H
        assert theirs.pop(0).stride() == (rows, B * rows, 1)
        assert ours.pop(0).stride() == (T * rows, rows, 1)
    assert [y.stride() for y in ours] == [y.stride() for y in theirs]
