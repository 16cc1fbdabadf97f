"""Accelerated modules whose weights are computed: parametrizations, old weight_norm, pruning."""

import copy

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import fastrnn.torch as ours
from torch_models import OPTIMIZERS, assert_equal_parameters, assert_near, normed, train_step

pytestmark = [
    pytest.mark.usefixtures("one_thread_of_torch"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning"),
]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        normed,
        lambda m: parametrizations.orthogonal(m, "weight_hh_l0"),
        lambda m: nn.utils.weight_norm(m, "weight_hh_l0"),
        lambda m: prune.random_unstructured(m, "weight_ih_l0", 0.5),
    ],
    ids=["weight_norm", "orthogonal", "old weight_norm", "prune"],
)
def test_weights_that_are_computed(change, late):
    plain, twin = nn.RNN(4, 4).double(), nn.RNN(4, 4).double()
    twin.load_state_dict(plain.state_dict())
    if late:
        ours.accelerate(twin)
    for module in (plain, twin):
        torch.manual_seed(1)  # pruning draws numbers
        change(module)
    if not late:
        report = ours.accelerate(twin)
        assert [(e.cls, e.reason) for e in report.replaced] == [
            ("torch.nn.RNN", "now fastrnn.torch.RNN")
        ], report
    optimizers = [(m, OPTIMIZERS["adam"](m.parameters())) for m in (plain, twin)]
    for step in range(6):
        if step == 4:
            assert len(ours.restore(twin).replaced) == 1
        x = torch.randn(5, 2, 4).double()
        for m, opt in optimizers:
            train_step(m, opt, x)
    assert_equal_parameters(twin, plain, 1e-9)
    assert type(twin).__mro__[1:] == type(plain).__mro__[1:]
    assert type(twin).__name__ == type(plain).__name__


def test_a_weight_that_is_a_buffer():
    module = nn.GRU(3, 4)
    x, weight = torch.randn(5, 2, 3), module.weight_hh_l0.detach()
    del module.weight_hh_l0
    module.register_buffer("weight_hh_l0", weight)
    wanted = module(x)[0]
    report = ours.accelerate(module)
    assert type(module) is ours.GRU, report
    assert_near(module(x)[0], wanted, 1e-6)
    assert module.weight_hh_l0 is weight


def test_spectral_norm():
    """in eval mode: in training, each look at the weight is a step of its power iteration"""
    module = parametrizations.spectral_norm(nn.RNN(4, 4), "weight_ih_l0").eval()
    x = torch.randn(5, 2, 4)
    wanted = module(x)[0]
    ours.accelerate(module)
    assert_near(module(x)[0], wanted, 1e-6)
    module.train()(x)[0].sum().backward()
    assert module.parametrizations.weight_ih_l0.original.grad.abs().max() > 0


def test_looking_at_a_parametrization_does_not_run_it():
    module = parametrizations.spectral_norm(nn.RNN(4, 4), "weight_ih_l0")
    before = copy.deepcopy(module.state_dict())
    ours.accelerate(module)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_copies_of_a_parametrized_module_are_apart():
    module = normed(nn.GRU(3, 4))
    twin = copy.deepcopy(module)
    ours.accelerate(twin)
    assert isinstance(twin, ours.GRU) and not isinstance(module, ours.GRU)
    x = torch.randn(3, 2, 3)
    twin(x)
    third = copy.deepcopy(twin)
    assert third._kernel is not twin._kernel and third._kernel.config == twin._kernel.config
    ours.restore(twin)
    assert isinstance(third, ours.GRU) and not isinstance(twin, ours.GRU)
    assert torch.equal(twin(x)[0], module(x)[0])
    assert_near(third(x)[0], module(x)[0], 1e-6)


def test_a_parametrization_removed_after_accelerate():
    module = normed(nn.GRU(3, 4))
    x = torch.randn(3, 2, 3)
    wanted = module(x)[0]
    ours.accelerate(module)
    parametrize.remove_parametrizations(module, "weight_hh_l0")
    assert type(module) is ours.GRU
    assert_near(module(x)[0], wanted, 1e-6)
    ours.restore(module)
    assert type(module) is nn.GRU and torch.equal(module(x)[0], wanted)
