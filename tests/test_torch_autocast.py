"""fastrnn.torch under autocast: the dtypes of torch's modules, the values of float32."""

import copy
import itertools
import re

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import fastrnn.torch
from torch_support import CELLS, LAYERS, NAMES, first, leaves, numbers, twins

F32, BF16, F16, F64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
STATES = (None, F32, BF16, F16)
PROJECTED = "LSTM with proj_size"


def cast(value, dtype):
    """What a test gives to a module, in another dtype"""
    if isinstance(value, tuple):
        return tuple(cast(t, dtype) for t in value)
    return value if value is None else value.to(dtype)


def inputs(name, form, sweeps=2, proj=6):
    """x, h and c of a call, in float32"""
    if name in CELLS:
        x, h, c = numbers(3, 4), numbers(3, 6), numbers(3, 6) / 2
    else:
        x, h, c = numbers(5, 3, 4), numbers(sweeps, 3, proj), numbers(sweeps, 3, 6) / 2
    if form == "without a batch":
        x, h, c = (x[0], h[0], c[0]) if name in CELLS else (x[:, 0], h[:, 0], c[:, 0])
    return x, h, c


def forms(name):
    return ("batch", "without a batch") if name in CELLS else ("batch", "without a batch", "packed")


def tensors(result):
    return [t for t in leaves(result) if t.is_floating_point()]


def run(module, form, x, hx, low=None):
    if form == "packed":
        x = pack_padded_sequence(x, [5, 3, 2])  # not under autocast, which refuses some dtypes
    with torch.autocast("cpu", low, enabled=low is not None):
        return module(x, hx)


def of_torch(module, low, form, x, hx):
    """Results of torch's module under autocast; the error that it raises instead."""
    try:
        return tensors(run(module, form, x, hx, low))
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("low", [BF16, F16])
@pytest.mark.parametrize("name", [*NAMES, PROJECTED])
def test_dtypes_are_those_of_torch(name, low, grad):
    name, proj = ("LSTM", 2) if name == PROJECTED else (name, 0)
    options = {} if name in CELLS else dict(bidirectional=True)
    theirs, ours = twins(name, 4, 6, **options, **({"proj_size": 2} if proj else {}))
    seen = set()
    for form, of_x, of_h, of_c in itertools.product(forms(name), STATES[1:], STATES, STATES):
        if (of_h is None) != (of_c is None) or ("LSTM" not in name and of_c is not of_h):
            continue
        x, h, c = inputs(name, form, proj=proj or 6)
        x = x.to(of_x)
        hx = None if of_h is None else (h.to(of_h), c.to(of_c)) if "LSTM" in name else h.to(of_h)
        with torch.set_grad_enabled(grad):
            wanted = of_torch(theirs, low, form, x, hx)
            found = tensors(run(ours, form, x, hx, low))
            exact = tensors(run(ours, form, x.float(), cast(hx, F32)))
        # Where torch raises, it is for what this CPU, or autocast itself, cannot do.
        case = f"{form}, x {of_x}, h {of_h}, c {of_c}"
        for a, b in zip(found, exact, strict=True):
            assert torch.equal(a, b.to(a.dtype)), case  # computed in float32, rounded at the end
        if isinstance(wanted, Exception):
            assert re.search("primitive|autocast::prioritize", str(wanted)), case
            continue
        assert [t.dtype for t in found] == [t.dtype for t in wanted], case
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=0.03, msg=case)
        seen.update(t.dtype for t in found)
    assert low in seen and (F32 in seen) == ("RNN" not in name)


@pytest.mark.parametrize("name", LAYERS)
def test_of_many_layers_too(name):
    theirs, ours = twins(name, 4, 6, 3, batch_first=True, dropout=0.5)
    for training, of_x in itertools.product((True, False), (F32, BF16)):
        theirs.train(training), ours.train(training)
        x = numbers(5, 3, 4).to(of_x)
        with torch.autocast("cpu", BF16):
            wanted, found = tensors(theirs(x)), tensors(ours(x))
            assert [t.dtype for t in found] == [t.dtype for t in wanted]
        if not training:
            for a, b in zip(found, wanted, strict=True):
                torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=0.03)


@pytest.mark.parametrize("on", [True, False])
def test_without_onednn(on):
    """then torch's LSTM keeps a wider c, as its packed one and its cell do"""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("without oneDNN")
    theirs, ours = twins("LSTM", 4, 6)
    x = numbers(5, 3, 4)
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(on)
    try:
        found, wanted = (of_torch(m, BF16, "batch", x, None) for m in (ours, theirs))
    finally:
        torch._C._set_mkldnn_enabled(before)
    assert {t.dtype for t in found} == {BF16 if on else F32}
    if not isinstance(wanted, Exception):
        assert {t.dtype for t in found} == {t.dtype for t in wanted}


@pytest.mark.parametrize("name", NAMES)
def test_float64(name):
    """autocast leaves it alone, and refuses to mix it"""
    theirs, ours = twins(name, 4, 6, dtype=F64)
    x, h, c = inputs(name, "batch", 1)
    for of_x, of_h in itertools.product((F64, F32, BF16), (None, F64, F32)):
        hx = cast(None if of_h is None else (h, c) if "LSTM" in name else h, of_h)
        wanted = of_torch(theirs, BF16, "batch", x.to(of_x), hx)
        found = of_torch(ours, BF16, "batch", x.to(of_x), hx)
        if isinstance(wanted, Exception):
            assert type(found) is type(wanted) and str(found) == str(wanted)
        else:
            torch.testing.assert_close(found, wanted)
    _, ours = twins(name, 4, 6)
    with torch.autocast("cpu", BF16), pytest.raises(RuntimeError):
        ours(x.double())  # as torch's


def test_a_cell_may_have_a_c_of_float64():
    """torch's own code computes it"""
    theirs, ours = twins("LSTMCell", 4, 6)
    x, h, c = inputs("LSTMCell", "batch")
    with torch.autocast("cpu", BF16):
        wanted, found = theirs(x, (h, c.double())), ours(x, (h, c.double()))
    assert found[0].dtype == F64 and all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("name", NAMES)
def test_switched_off_inside(name):
    _, ours = twins(name, 4, 6)
    x, h, c = inputs(name, "batch", 1)
    hx = (h, c) if "LSTM" in name else h
    with torch.autocast("cpu", BF16), torch.autocast("cpu", enabled=False):
        found = leaves(ours(x, hx))
        with pytest.raises((ValueError, RuntimeError), match="dtype"):
            ours(x.bfloat16())
    assert all(map(torch.equal, found, leaves(ours(x, hx))))


@pytest.mark.parametrize("form", ["batch", "packed", "lengths"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_of_the_inputs_dtypes(name, form):
    if name in CELLS and form != "batch":
        pytest.skip("cells take a batch")
    _, ours = twins(name, 4, 6)
    for of_x, of_h in itertools.product((F32, BF16), repeat=2):
        x, h, c = inputs(name, "batch", 1)
        x, h, c = (t.to(d).requires_grad_() for t, d in ((x, of_x), (h, of_h), (c, of_h)))
        hx, given = ((h, c), [x, h, c]) if "LSTM" in name else (h, [x, h])
        with torch.autocast("cpu", BF16):
            if form == "lengths":
                result = ours(x, hx, lengths=[5, 3, 2])
            else:
                result = run(ours, form, x, hx, BF16)
            loss = sum(t.float().square().sum() for t in tensors(result))
        found = torch.autograd.grad(loss, [*given, *ours.parameters()])
        assert [g.dtype for g in found[: len(given)]] == [t.dtype for t in given]
        assert all(g.dtype is F32 for g in found[len(given) :])
        wide = [t.detach().float().requires_grad_() for t in given]
        hx = tuple(wide[1:]) if "LSTM" in name else wide[1]
        exact = ours(wide[0], hx, lengths=[5, 3, 2]) if form == "lengths" else None
        exact = tensors(run(ours, form, wide[0], hx) if exact is None else exact)
        # the loss of the rounded results
        seeds = [2 * t.detach().float() for t in tensors(result)]
        wanted = torch.autograd.grad(exact, [*wide, *ours.parameters()], seeds)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a.float(), b, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", LAYERS)
def test_lengths_are_as_packed(name):
    _, ours = twins(name, 4, 6)
    for of_x in (F32, BF16):
        x = numbers(5, 3, 4).to(of_x)
        with torch.autocast("cpu", BF16):
            y, state = ours(x, lengths=torch.tensor([5, 3, 2]))
            packed, final = run(ours, "packed", x, None, BF16)
        assert [t.dtype for t in leaves((y, state))] == [t.dtype for t in tensors((packed, final))]
        assert all(map(torch.equal, leaves(state), leaves(final)))
        assert y.dtype == (BF16 if name == "RNN" else of_x)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NAMES)
def test_without_gradients_and_with_fixed_weights(name, mode):
    _, ours = twins(name, 4, 6)
    x, _, _ = inputs(name, "batch")
    with torch.autocast("cpu", BF16):
        wanted = leaves(ours(x.bfloat16()))
        with mode():
            found = leaves(ours(x.bfloat16()))
            with fastrnn.torch.fixed_weights(ours):
                fixed = leaves(ours(x.bfloat16()))
    for a, b, c in zip(wanted, found, fixed, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c) and a.dtype == b.dtype == c.dtype == BF16
        assert b.grad_fn is None


@pytest.mark.parametrize("low", [BF16, F16])
@pytest.mark.parametrize("name", NAMES)
def test_compiled(name, low):
    _, ours = twins(name, 4, 6)
    x, h, c = inputs(name, "batch", 1)
    hx = (h, c) if "LSTM" in name else h

    def model(x, hx):
        with torch.autocast("cpu", low):
            return ours(x, hx)

    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for of_x, of_h in itertools.product((F32, BF16), repeat=2):
        given = x.to(of_x), cast(hx, of_h)
        wanted, found = leaves(model(*given)), leaves(compiled(*given))
        assert [t.dtype for t in wanted] == [t.dtype for t in found]
        assert all(map(torch.equal, wanted, found))
        grads = [
            torch.autograd.grad(sum(t.float().sum() for t in r), ours.weight_hh_l0)[0]
            if name in LAYERS
            else torch.autograd.grad(sum(t.float().sum() for t in r), ours.weight_hh)[0]
            for r in (wanted, found)
        ]
        assert torch.equal(*grads)


@pytest.mark.parametrize("of_x", [F32, BF16])
@pytest.mark.parametrize("name", NAMES)
def test_exported(name, of_x):
    _, ours = twins(name, 4, 6)
    x = inputs(name, "batch")[0].to(of_x)
    with torch.autocast("cpu", BF16):
        wanted = leaves(ours(x))
        program = torch.export.export(ours, (x,), strict=False)
    found = leaves(program.module()(x))  # autocast is part of the recording
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype is b.dtype and torch.equal(a, b)


@pytest.mark.parametrize("cell", ["GRUCell", "LSTMCell", "RNNCell"])
def test_a_loop_that_advances_live_rows(cell):
    """index_put wants one dtype for both"""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)
            self.cell = getattr(torch.nn, cell)(8, 8)

        def forward(self, x, live):
            x = self.first(x)
            h = c = x.new_zeros(x.shape[1], 8)  # of autocast's dtype
            for t in range(len(x)):
                if cell == "LSTMCell":
                    new, new_c = self.cell(x[t], (h, c))
                    c = c.clone()
                    c[live[t]] = new_c[live[t]]
                else:
                    new = self.cell(x[t], h)
                h = h.clone()
                h[live[t]] = new[live[t]]
            return self.last(h)

    model, x, live = Model(), numbers(5, 3, 4), torch.rand(5, 3) < 0.7
    ours = copy.deepcopy(model)
    assert len(fastrnn.torch.accelerate(ours).replaced) == 1
    with torch.autocast("cpu", BF16):
        wanted, found = model(x, live), ours(x, live)
    assert wanted.dtype == found.dtype
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
    found.sum().backward()
    assert all(p.grad.dtype == F32 for p in ours.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_read_once(name):
    """spectral_norm takes a step each time that it is asked for one"""

    class Counting(torch.nn.Module):
        count = 0

        def forward(self, weight):
            self.count += 1
            return weight + 0

    _, ours = twins(name, 4, 6)
    weight = "weight_hh" if name in CELLS else "weight_hh_l0"
    counting = Counting()
    torch.nn.utils.parametrize.register_parametrization(ours, weight, counting)
    x, _, _ = inputs(name, "batch")
    counting.count = 0
    with torch.autocast("cpu", BF16):
        assert first(ours(x.bfloat16())).dtype is BF16
    assert counting.count == 1


def test_packed_results_keep_their_order():
    _, ours = twins("LSTM", 4, 6)
    packed = pack_padded_sequence(numbers(5, 3, 4).bfloat16(), [2, 5, 3], enforce_sorted=False)
    with torch.autocast("cpu", BF16):
        y, (h, _) = ours(packed)
    assert isinstance(y, PackedSequence) and y.data.dtype == h.dtype == BF16
    exact, (state, _) = ours(packed._replace(data=packed.data.float()))
    assert torch.equal(y.data, exact.data.bfloat16()) and torch.equal(h, state.bfloat16())
    assert torch.equal(y.unsorted_indices, exact.unsorted_indices)
