"""fastrnn.torch.fixed_weights: the same bits by weights nobody looks at, and broken promises."""

import copy
import threading

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn.torch
from fastrnn import _core
from fastrnn.torch import fixed_weights
from torch_support import CELLS, LAYERS, bits, first, leaves, numbers

FLOATS = (torch.float32, torch.float64)


def same(a, b):
    return all(bits(p) == bits(q) for p, q in zip(leaves(a), leaves(b), strict=True))


def calls_of(layer):
    """calls of every layout"""
    x = numbers(6, 3, layer.input_size, dtype=layer.weight_ih_l0.dtype)
    yield x
    yield x[:, 0]
    yield x[:1, :1]
    yield pack_padded_sequence(x, torch.tensor([6, 4, 1]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_same_bits(name, options, dtype, isa):
    layer = getattr(fastrnn.torch, name)(5, 19, dtype=dtype, **options).requires_grad_(False)
    for x in calls_of(layer):
        expected = layer(x)
        with fixed_weights(layer):
            assert same(layer(x), expected)
            assert same(layer(x), expected)
        assert same(layer(x), expected)
    x = numbers(6, 3, 5, dtype=dtype)
    expected = layer(x, lengths=[6, 0, 2])
    with fixed_weights(layer):
        assert same(layer(x, lengths=[6, 0, 2]), expected)


@pytest.mark.parametrize("name", CELLS)
def test_cells_have_the_same_bits(name, isa):
    cell = getattr(fastrnn.torch, name)(7, 33).requires_grad_(False)
    for x in (numbers(2, 7), numbers(30, 7), numbers(7)):
        expected = cell(x)
        with fixed_weights(cell):
            assert same(cell(x), expected)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(4, 6), fastrnn.torch.GRU(6, 20))
        self.cell = fastrnn.torch.LSTMCell(20, 24)
        self.requires_grad_(False)

    def forward(self, x):
        return self.cell(self.encoder(x)[0][-1])[0]


def test_nobody_looks_at_the_weights_and_a_change_is_told_at_the_end():
    model, x = Model(), numbers(5, 2, 4)
    before = model(x)
    with (
        pytest.raises(RuntimeError, match=r"encoder\.1\.weight_hh_l0, cell\.bias_ih changed"),
        fixed_weights(model),
    ):
        packed = model.cell._kernel.packings
        model.encoder[1].weight_hh_l0.data.mul_(2)
        model.cell.bias_ih.numpy()[3] = 9
        assert same(model(x), before)
        assert model.cell._kernel.packings == packed
    after = model(x)
    assert not same(after, before)
    assert same(copy.deepcopy(model)(x), after)


def test_a_weight_of_one_layer_is_named():
    cell = fastrnn.torch.GRUCell(3, 20).requires_grad_(False)
    with (
        pytest.raises(RuntimeError, match="fixed_weights: weight_ih changed inside"),
        fixed_weights(cell),
    ):
        cell.weight_ih.data[0, 0] += 1


def test_errors_inside_come_first():
    cell, x = fastrnn.torch.GRUCell(3, 20).requires_grad_(False), numbers(2, 3)
    before = cell(x)
    with pytest.raises(ZeroDivisionError), fixed_weights(cell):
        cell.weight_ih.data[0, 0] += 1
        raise ZeroDivisionError
    assert not same(cell(x), before)


@pytest.mark.parametrize("steps", [1, 4])
def test_other_tensors_in_their_place_are_seen(steps):
    layer, other = (fastrnn.torch.LSTM(3, 20).requires_grad_(False) for _ in range(2))
    x, theirs = numbers(steps, 1, 3), dict(other.named_parameters())
    before, expected = layer(x), other(x)
    with fixed_weights(layer):
        assert same(torch.func.functional_call(layer, theirs, x), expected)
        assert same(layer(x), before)
        layer.load_state_dict(other.state_dict(), assign=True)
        assert same(layer(x), expected)
        layer.double()
        assert first(layer(x.double())).dtype is torch.float64
    with fixed_weights(layer):
        assert first(layer(x.double())).dtype is torch.float64


def test_weights_that_were_taken_away_keep_their_place():
    """or others might lie there, and be taken for them"""
    layer, x = fastrnn.torch.GRU(3, 64).requires_grad_(False), numbers(4, 1, 3)
    with fixed_weights(layer):
        for _ in range(20):
            fresh = fastrnn.torch.GRU(3, 64).requires_grad_(False)
            for name, weight in fresh.named_parameters():
                setattr(layer, name, weight)
            assert same(layer(x), fresh(x))


def test_weights_with_gaps_are_left_out():
    layer, x = fastrnn.torch.GRU(3, 20).requires_grad_(False), numbers(4, 1, 3)
    cell = fastrnn.torch.GRUCell(3, 20)
    layer.weight_hh_l0 = torch.nn.Parameter(numbers(20, 60).T, requires_grad=False)
    before = layer(x)
    with pytest.raises(ValueError, match="model: expected"), fixed_weights(layer):
        pass
    with fixed_weights(torch.nn.ModuleList([layer, cell])):
        layer.weight_hh_l0.data.mul_(2)
        assert not same(layer(x), before)


def fill(weight):
    weight.data = torch.randn_like(weight)


def fill_in_two_steps(weight):
    weight.data = torch.empty(0)
    weight.data = torch.randn(60, 20)


def convert(weight):
    weight.data = weight.data.double().mul_(1.5)
    weight.data = weight.data.float()


def swap(weight):
    torch.utils.swap_tensors(weight, torch.nn.Parameter(torch.randn_like(weight), False))


@pytest.mark.parametrize("change", [fill, fill_in_two_steps, convert, swap])
def test_other_memory_never_comes_to_lie_where_weights_were(change):
    cell, x = fastrnn.torch.GRUCell(20, 20).requires_grad_(False), numbers(2, 20)
    with fixed_weights(cell):
        place = cell.weight_ih.data_ptr()
        for _ in range(40):
            change(cell.weight_ih)
            assert cell.weight_ih.data_ptr() != place
            assert same(cell(x), copy.deepcopy(cell)(x))


def test_a_conversion_is_no_broken_promise():
    cell, x = fastrnn.torch.GRUCell(3, 20).requires_grad_(False), numbers(2, 3)
    with fixed_weights(cell):
        assert cell.double()(x.double()).dtype is torch.float64


def test_memory_that_is_gone_is_a_change():
    cell = fastrnn.torch.GRUCell(3, 20).requires_grad_(False)
    with pytest.raises(RuntimeError, match="weight_hh changed inside"), fixed_weights(cell):
        cell.weight_hh.untyped_storage().resize_(0)


def test_shared_memory_is_no_change():
    cell, x = fastrnn.torch.GRUCell(3, 20).requires_grad_(False), numbers(2, 3)
    before = cell(x)
    with fixed_weights(cell):
        cell.share_memory()
        assert same(cell(x), before)


def test_it_begins_and_ends_under_modes_and_transforms():
    from torch._subclasses import FakeTensorMode

    cell, x = fastrnn.torch.GRUCell(3, 20), numbers(2, 3)
    with FakeTensorMode(allow_non_fake_inputs=True), fixed_weights(cell):
        pass

    def loss(x):
        with fixed_weights(cell):
            return cell(x).sum()

    assert torch.func.grad(loss)(x).shape == x.shape


@pytest.mark.skipif(len(_core.isas()) < 2, reason="one instruction set")
def test_another_instruction_set_at_the_end_is_no_change():
    cell, now = fastrnn.torch.GRUCell(3, 20), _core.isa()
    try:
        with fixed_weights(cell):
            _core.set_isa(next(isa for isa in _core.isas() if isa != now))
    finally:
        _core.set_isa(now)


def test_training_looks_as_ever():
    layer, x = fastrnn.torch.LSTM(3, 20), numbers(4, 2, 3)
    step = torch.optim.SGD(layer.parameters(), lr=0.5)
    outputs = []
    with (
        pytest.raises(RuntimeError, match="weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0"),
        fixed_weights(layer),
    ):
        for _ in range(2):
            outputs.append(layer(x)[0])
            step.zero_grad()
            outputs[-1].square().sum().backward()
            step.step()
    assert not same(*outputs)
    reference = copy.deepcopy(layer)
    assert same(layer(x), reference(x))


def test_operators_look_as_ever():
    layer, x = fastrnn.torch.GRU(3, 20).requires_grad_(False), numbers(4, 1, 3)
    compiled = torch.compile(layer, backend="eager")
    before = compiled(x)
    with pytest.raises(RuntimeError, match="weight_hh_l0"), fixed_weights(layer):
        layer.weight_hh_l0.data.mul_(2)
        assert not same(compiled(x), before)
        assert same(layer(x), before)


def test_what_was_never_packed_is_not_taken():
    cell, x = fastrnn.torch.GRUCell(3, 20).requires_grad_(False), numbers(9, 3)
    before = cell(x)
    cell._kernel._fixed = (_core.Fixed.__new__(_core.Fixed),)
    assert same(cell(x), before)


def test_it_nests_and_ends_in_any_order():
    cell, x = fastrnn.torch.GRUCell(3, 20).requires_grad_(False), numbers(9, 3)
    before = cell(x)
    with fixed_weights(cell), fixed_weights(torch.nn.Sequential(cell)):
        assert same(cell(x), before)
    one, other = fixed_weights(cell), fixed_weights(cell)
    one.__enter__(), other.__enter__()
    one.__exit__(None, None, None)
    cell.weight_ih.data.mul_(2)
    assert same(cell(x), before)  # the other still holds
    with pytest.raises(RuntimeError, match="weight_ih"):
        other.__exit__(None, None, None)
    assert not same(cell(x), before)
    assert cell._kernel._fixed == ()


def test_a_decorator():
    cell, x = fastrnn.torch.GRUCell(3, 20).requires_grad_(False), numbers(9, 3)

    @fixed_weights(cell)
    def run():
        return len(cell._kernel._fixed), cell(x)

    for _ in range(2):
        held, y = run()
        assert held == 1 and same(y, cell(x))


def test_copies_are_free():
    cell, x = fastrnn.torch.GRUCell(3, 20).requires_grad_(False), numbers(9, 3)
    before = cell(x)
    with fixed_weights(cell):
        other = copy.deepcopy(cell)
        other.weight_ih.data.mul_(2)
        assert not same(other(x), before)


def test_parametrized_weights_are_computed_as_ever():
    layer = weight_norm(fastrnn.torch.GRU(3, 20), "weight_hh_l0").requires_grad_(False)
    cell, x = fastrnn.torch.GRUCell(20, 20).requires_grad_(False), numbers(4, 1, 3)
    before = layer(x)
    with fixed_weights(torch.nn.ModuleList([layer, cell])):
        layer.parametrizations.weight_hh_l0.original0.data.mul_(2)
        assert not same(layer(x), before)


@pytest.mark.skipif(len(_core.isas()) < 2, reason="one instruction set")
def test_another_instruction_set_packs_for_itself():
    layer, x = fastrnn.torch.GRU(3, 20).requires_grad_(False), numbers(4, 1, 3)
    before, now = layer(x), _core.isa()
    with fixed_weights(layer):
        try:
            for isa in _core.isas():
                _core.set_isa(isa)
                torch.testing.assert_close(layer(x), before, rtol=1e-5, atol=1e-6)
        finally:
            _core.set_isa(now)


def test_threads_share_it():
    layer, x = fastrnn.torch.LSTM(3, 40).requires_grad_(False), numbers(4, 1, 3)
    expected, wrong = layer(x), []

    def run():
        for _ in range(50):
            with fixed_weights(layer):
                for _ in range(3):
                    if not same(layer(x), expected):
                        wrong.append(1)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and layer._kernel._fixed == ()


@pytest.mark.parametrize(
    "model",
    [
        torch.nn.GRU(3, 4),
        torch.nn.Linear(3, 4),
        fastrnn.torch.GRU(3, 4, dtype=torch.bfloat16),
        fastrnn.torch.GRU(3, 4, device="meta"),
        weight_norm(fastrnn.torch.GRU(3, 4), "weight_hh_l0"),
    ],
    ids=["torch's", "none", "bfloat16", "meta", "parametrized"],
)
def test_nothing_to_hold_is_an_error(model):
    with (
        pytest.raises(ValueError, match=r"model: expected layers or cells of fastrnn\.torch"),
        fixed_weights(model),
    ):
        pass


def test_no_module_is_an_error():
    with (
        pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got list"),
        fixed_weights([]),
    ):
        pass


def test_what_kernels_do_not_take_is_left_out():
    """and what they take is held"""
    cell = fastrnn.torch.RNNCell(3, 4).requires_grad_(False)
    other = fastrnn.torch.RNNCell(3, 4)
    other.nonlinearity = "sine"
    half = fastrnn.torch.GRU(3, 4, dtype=torch.float16)
    with fixed_weights(torch.nn.ModuleList([other, cell, half])):
        assert len(cell._kernel._fixed) == 1
        assert "_kernel" not in vars(half) or half._kernel._fixed == ()
