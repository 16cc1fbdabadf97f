"""Packed weights in fastrnn.torch are never stale, whatever changes the weights, and however."""

import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastrnn.torch
from fastrnn import _core
from fastrnn.torch._call import TIME, Call
from torch_support import LAYERS, twins


def agree(theirs, ours, x):
    """both outputs from the present weights, and gradients"""
    results = []
    for module in (theirs, ours):
        y = module(x)[0]
        results.append([y, *torch.autograd.grad(y.sum(), list(module.parameters()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def optimizers():
    found = [getattr(torch.optim, n) for n in dir(torch.optim)]
    return sorted(
        (o for o in found if isinstance(o, type) and issubclass(o, torch.optim.Optimizer)),
        key=lambda o: o.__name__,
    )


SKIPPED = {"Optimizer": "abstract", "SparseAdam": "only takes sparse gradients"}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar")
@pytest.mark.parametrize("optimizer", optimizers(), ids=lambda o: o.__name__)
def test_every_optimizer(optimizer):
    name = optimizer.__name__
    if name in SKIPPED:
        pytest.skip(SKIPPED[name])
    matrices = name == "Muon"  # which takes nothing else
    theirs, ours = twins("LSTM", 3, 5, dtype=torch.float64, bias=not matrices)
    steps = []
    for module in (theirs, ours):
        options = {"lr": 0.05} if name != "LBFGS" else {"lr": 0.05, "max_iter": 3}
        stepper = optimizer(module.parameters(), **options)
        x = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

        def closure(module=module, stepper=stepper, x=x):
            stepper.zero_grad()
            loss = module(x)[0].square().sum()
            loss.backward()
            return loss

        steps.append([float(stepper.step(closure)) for _ in range(6)])
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-7)
    assert steps[1][0] != steps[1][-1]
    agree(theirs, ours, x)


def unnoticed(weight, value):
    """ways to change a weight, most of which the version counter does not see"""
    shared = weight.detach().numpy()
    return {
        "data": lambda: weight.data.copy_(value),
        "numpy": lambda: np.copyto(shared, value.numpy()),
        "one element": lambda: shared.__setitem__((-1, -1), 3.0),
        "sign of one": lambda: shared.__setitem__((0, 0), -shared[0, 0]),
        "signs": lambda: np.negative(shared, out=shared),
        "swapped rows": lambda: np.copyto(shared, shared[::-1].copy()),
        "swapped elements": lambda: np.copyto(shared[0], shared[0, ::-1].copy()),
        "replaced": lambda: setattr(weight, "data", value.clone()),
        "no_grad": lambda: torch.no_grad()(weight.copy_)(value),
        "storage": lambda: weight.untyped_storage().copy_(value.untyped_storage()),
    }


@pytest.mark.parametrize("way", unnoticed(torch.zeros(1, 1), torch.zeros(1, 1)))
@pytest.mark.parametrize("weight", ["weight_ih_l0", "weight_hh_l0", "weight_hh_l1_reverse"])
def test_edits(weight, way, isa):
    theirs, ours = twins("GRU", 13, 17, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(3, 2, 13, dtype=torch.float64)
    before = ours(x)[0]
    value = torch.randn_like(getattr(ours, weight))
    for module in (theirs, ours):
        unnoticed(getattr(module, weight), value)[way]()
    agree(theirs, ours, x)
    assert not torch.equal(ours(x)[0], before)


@pytest.mark.parametrize("name", ["bias_ih_l0", "bias_hh_l0", "weight_hr_l0"])
def test_edits_of_small_weights(name, isa):
    theirs, ours = twins("LSTM", 3, 5, proj_size=2, dtype=torch.float64)
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    ours(x)
    for module in (theirs, ours):
        getattr(module, name).data.view(-1)[-1] += 1.0
    agree(theirs, ours, x)


@pytest.mark.parametrize("name", LAYERS)
def test_weights_that_move_without_a_change(name):
    """the first pass back packs from where they lie then, not from where they were"""
    theirs, ours = twins(name, 3, 5, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        ours(x)
    old = [p.data for p in ours.parameters()]
    for p in ours.parameters():
        p.data = p.data.clone()
    for w in old:
        w.zero_()
    dx = [torch.autograd.grad(module(x)[0].sum(), x)[0] for module in (theirs, ours)]
    torch.testing.assert_close(dx[1], dx[0], rtol=1e-9, atol=1e-11)


def test_backward_uses_the_weights_of_forward():
    """also when they were changed in between, where the version counter does not see it"""
    layer = fastrnn.torch.GRU(3, 5, 2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layer.parameters()]
    y = layer(x)[0]
    expected = torch.autograd.grad(layer(x)[0].sum(), wanted)
    for keep in (True, False):
        for weight in layer.parameters():
            weight.data.mul_(2)
        layer(x[:1])  # packs what they are now
        actual = torch.autograd.grad(y.sum(), wanted, retain_graph=keep)
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
    assert not torch.equal(layer(x)[0], y)


def test_a_graph_that_is_gone_leaves_its_packed_weights_to_the_next_pass():
    """though y, which refers to it, is kept"""
    layer = fastrnn.torch.GRU(3, 5)
    y = layer(torch.randn(4, 2, 3))[0]
    for keep in (True, True, False):
        assert y.grad_fn.call[-1] is not None
        y.sum().backward(retain_graph=keep)
    assert y.grad_fn.call[-1] is None


def test_backward_refuses_weights_that_autograd_saw_change():
    layer = fastrnn.torch.RNN(3, 5)
    y = layer(torch.randn(4, 2, 3))[0]
    with torch.no_grad():
        layer.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_memory_shared_with_another_process():
    theirs, ours = twins("RNN", 3, 5, dtype=torch.float64)
    ours.share_memory()
    ours(torch.randn(2, 3, dtype=torch.float64))
    theirs.weight_hh_l0.data.mul_(3)
    process = torch.multiprocessing.get_context("fork").Process(target=triple, args=(ours,))
    process.start()
    process.join()
    assert process.exitcode == 0
    agree(theirs, ours, torch.randn(4, 2, 3, dtype=torch.float64))


def triple(module):
    module.weight_hh_l0.data.mul_(3)


def test_load_state_dict_and_assign():
    theirs, ours = twins("LSTM", 3, 5, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    for assign in (False, True):
        ours(x)
        fresh = torch.nn.LSTM(3, 5, dtype=torch.float64).state_dict()
        theirs.load_state_dict(fresh)
        ours.load_state_dict({k: w.clone() for k, w in fresh.items()}, assign=assign)
        agree(theirs, ours, x)


def test_tied_weights():
    theirs, ours = twins("RNN", 5, 5, dtype=torch.float64)
    x = torch.randn(4, 2, 5, dtype=torch.float64)
    for module in (theirs, ours):
        module.weight_ih_l0 = module.weight_hh_l0
    agree(theirs, ours, x)
    for module in (theirs, ours):
        torch.optim.SGD(module.parameters(), 0.1).step()
        module.weight_hh_l0.data.mul_(0.5)
    agree(theirs, ours, x)
    other = fastrnn.torch.RNN(5, 5, dtype=torch.float64)
    other.weight_hh_l0 = ours.weight_hh_l0  # between modules
    twin = torch.nn.RNN(5, 5, dtype=torch.float64)
    twin.load_state_dict(other.state_dict())
    agree(twin, other, x)
    with torch.no_grad():
        ours.weight_hh_l0.add_(0.25), twin.weight_hh_l0.add_(0.25)
    agree(twin, other, x)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_weight_norm(old):
    theirs, ours = twins("LSTM", 3, 5, dtype=torch.float64)
    norm = torch.nn.utils.weight_norm if old else torch.nn.utils.parametrizations.weight_norm
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    for module in (theirs, ours):
        norm(module, "weight_hh_l0")
        norm(module, "weight_ih_l0")
    agree(theirs, ours, x)
    for module in (theirs, ours):
        stepper = torch.optim.SGD(module.parameters(), 0.1)
        for _ in range(2):
            stepper.zero_grad()
            module(x)[0].square().sum().backward()
            stepper.step()
    agree(theirs, ours, x)


def test_functional_call():
    theirs, ours = twins("GRU", 3, 5, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    ours(x)
    other = {k: w * 2 for k, w in ours.state_dict().items()}
    for module in (theirs, ours):
        module.twice = torch.func.functional_call(module, other, (x,))[0]
    torch.testing.assert_close(ours.twice, theirs.twice, rtol=1e-9, atol=1e-11)
    agree(theirs, ours, x)


def test_repacks_only_what_changed():
    layer = fastrnn.torch.LSTM(4, 6)
    x = torch.randn(3, 2, 4)
    for _ in range(5):
        layer(x)[0].sum().backward()
    assert layer._kernel.packings == 1
    with torch.no_grad():
        layer.bias_hh_l0.add_(1)
    for _ in range(5):
        layer(x)[0].sum().backward()
    assert layer._kernel.packings == 2


def test_threads_see_the_weights_of_their_call():
    """each thread has weights of its own in turn, on one shared kernel"""
    module = fastrnn.torch.GRU(16, 24)
    x = torch.randn(5, 3, 16)
    sets = [{k: torch.randn_like(w) for k, w in module.state_dict().items()} for _ in range(4)]
    with torch.inference_mode():
        module(x)
        kernel, call = module._kernel, Call(TIME, 3, 0.0)
        wanted, wrong = [], []
        for weights in sets:
            wanted.append(fastrnn_forward(fastrnn.torch.GRU(16, 24), weights, x))

        def work(i):
            with torch.inference_mode():
                for _ in range(200):
                    weights = list(sets[i].values())
                    got = kernel.forward(x, None, None, weights, call, False)[0]
                    if not torch.equal(got, wanted[i]):
                        wrong.append(i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        [t.start() for t in threads], [t.join() for t in threads]
    assert not wrong


def fastrnn_forward(module, weights, x):
    module.load_state_dict(weights)
    return module(x)[0].clone()


def test_a_fingerprint_sees_every_bit(isa):
    rng = np.random.default_rng(0)
    for size in (0, 1, 7, 64, 511, 512, 513, 1024, 4096):
        data = rng.integers(0, 256, size, np.uint8)
        seen = {_core.fingerprint(data.ctypes.data, size)}
        for bit in range(8 * size) if size <= 513 else rng.integers(0, 8 * size, 4000):
            data[bit // 8] ^= np.uint8(1 << (bit % 8))
            seen.add(_core.fingerprint(data.ctypes.data, size))
            data[bit // 8] ^= np.uint8(1 << (bit % 8))
        if size <= 513:
            assert len(seen) == 8 * size + 1
        assert _core.fingerprint(data.ctypes.data, size) in seen


def test_a_fingerprint_sees_rows_that_change_places(isa):
    """pieces of 8 to 1,024 bytes of noise in another order, and one zero among ones"""
    noise = np.random.default_rng(0).standard_normal(2048).astype(np.float32)
    for size in (2, 4, 16, 64, 256):
        seen, tried = {_core.fingerprint(noise.ctypes.data, noise.nbytes)}, 1
        pieces = len(noise) // size
        for first in range(0, pieces, max(pieces // 32, 1)):
            for second in range(first + 1, pieces, max(pieces // 32, 1)):
                data = noise.reshape(pieces, size).copy()
                data[[first, second]] = data[[second, first]]
                seen.add(_core.fingerprint(data.ctypes.data, data.nbytes))
                tried += 1
        assert len(seen) == tried
    where = set()
    for i in range(2048):
        data = np.ones(2048, np.float32)
        data[i] = 0
        where.add(_core.fingerprint(data.ctypes.data, data.nbytes))
    assert len(where) == 2048


def test_a_fingerprint_sees_pairs_of_signs(isa):
    """flipped top bits are what a hash by multiplication loses most easily"""
    base = np.ones(1024, np.float32)
    seen, tried = set(), 0
    for i in range(0, 1024, 16):
        for j in range(i, 1024, 16):
            data = base.copy()
            data[[i, j]] = -1
            seen.add(_core.fingerprint(data.ctypes.data, data.nbytes))
            tried += 1
    assert len(seen) == tried


def test_a_fingerprint_sees_few_bits_of_two_words(isa):
    """words that one lane takes one after another, and bits that shifts by half a word meet"""
    bits = (0, 1, 2, 29, 30, 31, 32, 33, 34, 61, 62, 63)
    data = np.random.default_rng(0).standard_normal(512).astype(np.float32).view(np.uint64)
    of_first = [sum({1 << a, 1 << b}) for a in bits for b in bits if a <= b] + [0]
    of_second = [1 << a for a in bits] + [0]
    for distance in (8, 16, 32, 64, 128):
        seen = set()
        for first in of_first:
            for second in of_second:
                changed = data.copy()
                changed[100] ^= np.uint64(first)
                changed[100 + distance] ^= np.uint64(second)
                seen.add(_core.fingerprint(changed.ctypes.data, changed.nbytes))
        assert len(seen) == len(of_first) * len(of_second)
