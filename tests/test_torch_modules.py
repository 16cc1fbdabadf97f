"""fastrnn.torch as a drop-in: PyTorch's own tests of its modules, and what users rely on beside."""

import copy
import itertools
import os
import pickle
import subprocess
import sys
import warnings

import hypothesis
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # torch's module database imports it

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

import fastrnn
import fastrnn.torch
from fastrnn import _threads
from fastrnn.torch import _modules
from torch_support import CELLS, LAYERS, NAMES, leaves, twins

hypothesis.settings.load_profile("fastrnn")  # torch.testing has loaded its own

pytestmark = pytest.mark.filterwarnings(
    "ignore:dropout option adds dropout after all but last",
)

INFOS = {m.module_cls.__name__: m for m in module_db if m.module_cls.__module__.endswith(".rnn")}
MODES = (True, False)


def gradients(outputs, wanted, seed=0):
    generator = torch.Generator().manual_seed(seed)
    floats = [o for o in outputs if o.dtype.is_floating_point and o.requires_grad]
    dy = [torch.randn(o.shape, dtype=o.dtype, generator=generator) for o in floats]
    return torch.autograd.grad(floats, wanted, dy, allow_unused=True)


def assert_all_close(actual, expected):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        assert (a is None) == (e is None)
        if a is not None:
            torch.testing.assert_close(a, e, rtol=1e-10, atol=1e-12)


# ---- torch.testing._internal.common_modules


def samples(name, training):
    """all that torch 2.13 can make; packed sequences only come when asked for"""
    info = INFOS[name]
    return info.module_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=True, training=training,
        with_packed_sequence=True,
    )  # fmt: skip


def errors(name):
    info = INFOS[name]
    return info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=True, training=True
    )


def test_the_database_has_what_we_think():
    assert set(INFOS) == set(NAMES)
    # Each mode: 87 of tensors and 48 of packed sequences (RNN 32, GRU 16; torch has none for LSTM).
    assert sum(len(samples(n, training)) for n in INFOS for training in MODES) >= 270
    recent = tuple(int(v) for v in torch.__version__.split(".")[:2]) >= (2, 13)
    assert sum(len(errors(n)) for n in INFOS) >= (58 if recent else 22)  # 22 in 2.6


@pytest.mark.parametrize("training", MODES)
@pytest.mark.parametrize("name", INFOS)
def test_samples(name, training, isa):
    for sample in samples(name, training):
        made = sample.constructor_input
        theirs, ours = twins(name, *made.args, dtype=torch.float64, **made.kwargs)
        theirs.train(training), ours.train(training)
        given = sample.forward_input
        inputs = [t for t in leaves([*given.args, *given.kwargs.values()]) if t is not None]
        wanted = [t for t in inputs if t.dtype.is_floating_point and t.requires_grad]
        results = []
        for module in (theirs, ours):
            out = leaves(module(*given.args, **given.kwargs))
            grads = gradients(out, [*wanted, *module.parameters()])
            results.append([*[o.detach() for o in out], *grads])
        assert_all_close(results[1], results[0])
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", INFOS)
def test_error_inputs(name):
    for error in errors(name):
        made = error.module_error_input.constructor_input
        given = error.module_error_input.forward_input
        cls = getattr(fastrnn.torch, name)
        if error.error_on is ModuleErrorEnum.CONSTRUCTION_ERROR:
            with pytest.raises(error.error_type, match=error.error_regex):
                cls(*made.args, **made.kwargs)
        else:
            kwargs = {"dtype": torch.float64, **made.kwargs}
            module = cls(*made.args, **kwargs)
            with pytest.raises(error.error_type, match=error.error_regex):
                module(*given.args, **given.kwargs)


@pytest.mark.parametrize("cell", [False, True])
@pytest.mark.parametrize("wanted", ["h0", "c0", "both"])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_of_the_states_that_want_one(wanted, cell, frozen):
    theirs, ours = twins("LSTMCell" if cell else "LSTM", 4, 6, dtype=torch.float64)
    if frozen:  # nothing else wants any
        theirs.requires_grad_(False), ours.requires_grad_(False)
    x = torch.randn(2, 4, dtype=torch.float64) if cell else torch.randn(5, 2, 4).double()
    h, c = torch.randn(2, *([] if cell else [1]), 2, 6, dtype=torch.float64).unbind()
    asked = {"h0": [h], "c0": [c], "both": [h, c]}[wanted]
    for state in asked:
        state.requires_grad_()
    results = [gradients(leaves(module(x, (h, c))), asked) for module in (theirs, ours)]
    assert_all_close(results[1], results[0])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_one_weight_alone(name):
    """the others are frozen, and x wants none"""
    theirs, ours = twins(name, 4, 6, dtype=torch.float64)
    x = torch.randn(2, 4, dtype=torch.float64)
    for which, _ in theirs.named_parameters():
        results = []
        for module in (theirs, ours):
            for key, weight in module.named_parameters():
                weight.requires_grad_(key == which)
            results.append(gradients(leaves(module(x)), [module.get_parameter(which)]))
        assert_all_close(results[1], results[0])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_one_result_alone(name):
    """as where a loss is computed from the last state, and y is of no interest"""
    theirs, ours = twins(name, 4, 6, dtype=torch.float64)
    x = torch.randn(2, 4) if name in CELLS else torch.randn(5, 2, 4)
    x = x.double().requires_grad_()
    for index in range(len(leaves(theirs(x)))):
        results = []
        for module in (theirs, ours):
            out = leaves(module(x))[index : index + 1]
            results.append(gradients(out, [x, *module.parameters()]))
        assert_all_close(results[1], results[0])


# ---- packed sequences


@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", LAYERS)
def test_packed_sequences(name, layers, bidirectional, state, enforce_sorted, isa):
    theirs, ours = twins(name, 5, 19, layers, bidirectional=bidirectional, dtype=torch.float64)
    x = torch.randn(9, 6, 5, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([9, 8, 8, 4, 1, 1] if enforce_sorted else [4, 9, 1, 8, 8, 1])
    h = torch.randn(layers * (1 + bidirectional), 6, 19, dtype=torch.float64, requires_grad=True)
    wanted = [x, h] if state else [x]
    results = []
    for module in (theirs, ours):
        hx = ((h, h * 2) if name == "LSTM" else h) if state else None
        packed = pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
        y, final = module(packed, hx)
        assert isinstance(y, PackedSequence)
        padded, sizes = pad_packed_sequence(y)
        assert sizes.tolist() == lengths.tolist()
        out = [padded, *leaves(final)]
        results.append([*out, *gradients(out, [*wanted, *module.parameters()])])
    assert_all_close(results[1], results[0])


@pytest.mark.parametrize("name", LAYERS)
def test_packed_rows_may_lie_apart(name):
    """as columns of something wider, and so may their gradients"""
    layer = getattr(fastrnn.torch, name)(3, 6)
    sizes, wide, wide_dy = torch.tensor([4, 3, 1]), torch.randn(8, 5), torch.randn(8, 9)
    results = []
    for data, dy in (
        (wide[:, :3], wide_dy[:, 1:7]),
        (wide[:, :3].contiguous(), wide_dy[:, 1:7].contiguous()),
    ):
        x = data.detach().requires_grad_()
        assert x.stride() == data.stride()
        y = layer(PackedSequence(x, sizes))[0].data
        results.append([y, *torch.autograd.grad(y, [x, *layer.parameters()], dy)])
    assert all(map(torch.equal, *results))


def test_packed_rows_have_the_bits_of_rows_alone(fma_isa):
    layer = fastrnn.torch.LSTM(5, 33, 2, bidirectional=True)
    x, lengths = torch.randn(9, 4, 5), [3, 9, 1, 6]
    with torch.no_grad():
        y, _ = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
        y, _ = pad_packed_sequence(y)
        for row, n in enumerate(lengths):
            alone, _ = layer(x[:n, row])
            assert alone.numpy().tobytes() == y[:n, row].contiguous().numpy().tobytes()


def test_fewer_layers_than_weights():
    layer = fastrnn.torch.LSTM(3, 5, 2)
    layer.num_layers = 1
    message = "^weights: expected 4 for num_layers=1, got 8, weight_ih_l0 to bias_hh_l1$"
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(2, 1, 3))


@pytest.mark.parametrize(
    ("sizes", "rows", "match"),
    [
        ([2, 3], 5, "expected values from 2 downwards to 1, got 3 at step 1"),
        ([2, 0], 2, "expected values from 2 downwards to 1, got 0 at step 1"),
        ([3, 2, -1], 5, "expected values from 3 downwards to 1, got -1 at step 2"),
        ([2, 1], 4, "expected a sum of 4, the rows of data, got 3"),
        ([2, 2, 1], 3, "a sum of 3, the rows of data, got more: 2 at step 1 after a sum of 2"),
        ([2**62, 2**62], 5, f"a sum of 5, .*, got more: {2**62} at step 0 after a sum of 0"),
        ([2**63 - 1] * 3, 5, f"a sum of 5, .*, got more: {2**63 - 1} at step 0 after a sum of 0"),
    ],
)
def test_invalid_batch_sizes(sizes, rows, match):
    layer = fastrnn.torch.GRU(2, 3)
    with pytest.raises(ValueError, match=f"^batch_sizes: .*{match}"):
        layer(PackedSequence(torch.zeros(rows, 2), torch.tensor(sizes)))


# ---- as part of a program


def test_importing_fastrnn_does_not_import_torch():
    code = "import sys, fastrnn; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


FORK = """
import os, sys, numpy as np, torch, fastrnn
torch.set_num_threads(2)
torch.rand(600, 600) @ torch.rand(600, 600)
torch.rand(3000000).exp_()  # OpenMP has threads from here on, and none of them are fastrnn's
child = os.fork()
if not child:
    layer = fastrnn.LSTM(64, 128, num_threads=2)
    layer.forward(np.zeros((30, 32, 64), np.float32))
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_from_a_process_with_torchs_threads_does_not_wait_for_them():
    code = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    subprocess.run(code, check=True, timeout=120)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_as_the_numpy_layers(name, bias, fma_isa):
    module = getattr(fastrnn.torch, name)(13, 20, bias=bias)
    layer = getattr(fastrnn, name.removesuffix("Cell"))(13, 20, bias=bias)
    end = "_l0" if name in CELLS else ""
    layer.load_state_dict({k + end: w.detach() for k, w in module.state_dict().items()})
    x = torch.randn(3, 13) if name in CELLS else torch.randn(4, 3, 13)
    with torch.inference_mode():
        ours = leaves(module(x))
    assert "_kernel" in vars(module)
    y, state = layer(x[None] if name in CELLS else x)
    states = state if isinstance(state, tuple) else (state,)
    wanted = [s[0] for s in states] if name in CELLS else [y, *states]
    for a, b in zip(ours, wanted, strict=True):
        assert a.numpy().tobytes() == b.tobytes()


@pytest.mark.parametrize("name", CELLS)
def test_a_row_without_its_axis_has_the_bits_of_a_batch(name, fma_isa):
    cell = getattr(fastrnn.torch, name)(13, 20)
    x, h, c = torch.randn(3, 13), torch.randn(3, 20), torch.randn(3, 20)
    with torch.no_grad():
        together = leaves(cell(x, (h, c) if name == "LSTMCell" else h))
        for row in range(3):
            state = (h[row], c[row]) if name == "LSTMCell" else h[row]
            for part, whole in zip(leaves(cell(x[row], state)), together, strict=True):
                assert part.numpy().tobytes() == whole[row].numpy().tobytes()


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
@pytest.mark.parametrize("name", CELLS)
def test_one_unit_keeps_its_axis(name, shape):
    theirs, ours = twins(name, 4, 1, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    assert_all_close(leaves(ours(x)), leaves(theirs(x)))
    assert all(t.shape == (*shape[:-1], 1) for t in leaves(ours(x)))


@pytest.mark.parametrize("layout", ["tb", "bt", "t"])
@pytest.mark.parametrize("name", LAYERS)
def test_any_strides(name, layout):
    theirs, ours = twins(name, 4, 6, batch_first=layout == "bt", dtype=torch.float64)
    shape = (5, 4) if layout == "t" else (5, 3, 4)
    base = torch.randn(*(2 * n for n in shape), dtype=torch.float64)
    every = tuple(slice(None, None, 2) for _ in shape)
    views = [base[every], base[every].transpose(0, -1).contiguous().transpose(0, -1)]
    views.append(torch.randn(4, dtype=torch.float64).expand(shape))
    for x in views:
        x = x.detach().requires_grad_()
        for dy_of in (torch.ones_like, lambda y: torch.ones((), dtype=y.dtype).expand_as(y)):
            results = []
            for module in (theirs, ours):
                y, _ = module(x)
                results.append(torch.autograd.grad(y, [x, *module.parameters()], dy_of(y)))
            assert_all_close(results[1], results[0])


@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles(name):
    module = getattr(fastrnn.torch, name)(4, 6)
    x = torch.randn(3, 2, 4) if name in LAYERS else torch.randn(2, 4)
    wanted = leaves(module(x))[0]
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(leaves(twin(x))[0], wanted)
        with torch.no_grad():
            next(twin.parameters()).mul_(2)
        assert not torch.equal(leaves(twin(x))[0], wanted)
        assert torch.equal(leaves(module(x))[0], wanted)
    assert torch.equal(leaves(copy.copy(module)(x))[0], wanted)


@pytest.mark.parametrize("name", NAMES)
def test_dtype_can_change_and_a_stray_parameter_names_itself(name):
    theirs, ours = twins(name, 4, 6)
    for dtype in (torch.float64, torch.float32, torch.float64):
        theirs.to(dtype), ours.to(dtype)
        x = torch.randn(3, 4, dtype=dtype)
        for a, b in zip(leaves(ours(x)), leaves(theirs(x)), strict=True):
            torch.testing.assert_close(a, b)
    stray = "weight_hh_l0" if name in LAYERS else "weight_hh"
    parameter = getattr(ours, stray)
    parameter.data = parameter.data.float()
    with pytest.raises(ValueError, match=f"{stray}: expected dtype torch.float64"):
        ours(torch.randn(3, 4, dtype=torch.float64))
    parameter.data = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=rf"{stray}: expected shape \[.*\], got \[2, 2\]"):
        ours(torch.randn(3, 4, dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_what_the_kernels_are_not_for_goes_to_torch_with_one_warning(name, monkeypatch):
    monkeypatch.setattr(_modules, "_warned", set())
    theirs, ours = twins(name, 4, 6, dtype=torch.bfloat16)
    x = torch.randn(3, 4, dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match="own code runs: weights of torch.bfloat16"):
        first = leaves(ours(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = leaves(ours(x))
    for a, b, c in zip(first, second, leaves(theirs(x)), strict=True):
        assert torch.equal(a, c) and torch.equal(b, c)
    meta = getattr(fastrnn.torch, name)(4, 6, device="meta")
    assert leaves(meta(torch.empty(3, 4, device="meta")))[0].device.type == "meta"


def test_threads_are_torchs_unless_set(monkeypatch):
    from fastrnn.torch import _kernel

    asked = []
    layer = fastrnn.torch.LSTM(4, 6)
    original = _kernel._num_threads
    monkeypatch.setattr(_kernel, "_num_threads", lambda: asked.append(original()) or original())
    before = torch.get_num_threads()
    try:
        for threads, default in itertools.product((1, 2), (0, 3)):
            torch.set_num_threads(threads)
            monkeypatch.setattr(_threads, "default", default)
            layer(torch.randn(2, 4))
            assert asked[-1] == (default or threads)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cls", [torch.nn.GRU, torch.nn.GRUCell])
def test_a_pickle_holds_what_torchs_does(cls, tmp_path):
    """not what the first call made: who allows certain classes need not allow others then"""
    module = getattr(fastrnn.torch, cls.__name__)(3, 4)
    x = torch.randn(2, 3)
    wanted = module(x)
    assert "_kernel" in vars(module)
    copied = copy.deepcopy(module)
    assert set(vars(copied)) == set(vars(cls(3, 4)))
    assert all(torch.equal(a, b) for a, b in zip(copied(x), wanted, strict=True))
