"""An accelerated model computes and learns what torch's does."""

import copy

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import fastrnn
import fastrnn.torch as ours
from torch_models import (
    MODELS,
    OPTIMIZERS,
    TOLERANCE,
    TRAINED,
    Alone,
    Hybrid,
    assert_equal_parameters,
    assert_near,
    pair_of,
    tensor_of,
    train_step,
)

pytestmark = pytest.mark.usefixtures("one_thread_of_torch")


def our_bits(lstm, x):
    """what the library computes with the weights of a torch layer"""
    layer = fastrnn.LSTM(lstm.input_size, lstm.hidden_size, num_layers=lstm.num_layers)
    layer.load_state_dict({k: v.detach().numpy() for k, v in lstm.state_dict().items()})
    return layer(x.numpy())[0].tobytes()


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("model", MODELS)
def test_results_and_gradients(model, dtype):
    plain, twin, x = pair_of(model, dtype)
    outputs = []
    for m in (plain, twin):
        given = x.clone().requires_grad_()
        y = tensor_of(m(given))
        y.square().sum().backward()
        outputs.append((y.detach(), given.grad, *(p.grad for p in m.parameters())))
    for wanted, actual in zip(*outputs, strict=True):
        assert_near(actual, wanted, 10 * TOLERANCE[dtype])


@pytest.mark.usefixtures("isa")
def test_the_library_computes():
    model, x = nn.LSTM(3, 8, num_layers=2), torch.randn(9, 2, 3)
    ours.accelerate(model)
    with torch.no_grad():
        assert model(x)[0].numpy().tobytes() == our_bits(model, x)


def test_packed_sequences():
    plain, twin, _ = pair_of(Alone)
    packed = pack_sequence([torch.randn(n, 3).double() for n in (4, 9, 1)], enforce_sorted=False)
    (y, (h, c)), (y2, (h2, c2)) = plain(packed), twin(packed)
    for actual, wanted in ((y2.data, y.data), (h2, h), (c2, c)):
        assert_near(actual, wanted, 1e-12)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", TRAINED)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_training_trajectory_with_changes_on_the_way(model, optimizer, dtype):
    plain = model().to(dtype)
    twin = copy.deepcopy(plain)
    makers = [(m, OPTIMIZERS[optimizer](m.parameters())) for m in (plain, twin)]
    for step in range(12):
        if step == 3:
            ours.accelerate(twin)
        if step == 9:
            ours.restore(twin)
        x = torch.randn(*model.example, dtype=dtype)
        for m, opt in makers:
            train_step(m, opt, x)
    assert_equal_parameters(twin, plain, TRAINED[dtype])


class Module(Hybrid):
    """what such frameworks ask of a model: hooks that the loop calls"""

    def __init__(self):
        super().__init__()
        self.calls = []

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2, eps=1e-3)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def on_fit_start(self):
        self.calls.append("fit")

    def on_train_epoch_start(self):
        self.calls.append("epoch")

    def training_step(self, batch):
        x, target = batch
        return nn.functional.cross_entropy(self(x), target)

    def validation_step(self, batch):
        x, target = batch
        return (self(x).argmax(1) == target).double().mean()


def fit(model, batches, epochs=3):
    """the order in which Lightning's trainer calls a module, checkpoints included"""
    optimizer, schedule = model.configure_optimizers()
    model.on_fit_start()
    scores, checkpoint = [], None
    for epoch in range(epochs):
        model.train()
        model.on_train_epoch_start()
        for batch in batches[1:]:

            def closure(batch=batch):
                optimizer.zero_grad()
                loss = model.training_step(batch)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                return loss

            optimizer.step(closure)
        schedule.step()
        model.eval()
        with torch.no_grad():
            scores.append(model.validation_step(batches[0]))
        if epoch == 1:
            checkpoint = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    model.load_state_dict(checkpoint[0])
    optimizer.load_state_dict(checkpoint[1])
    return scores


@pytest.mark.usefixtures("isa")
def test_a_loop_like_lightnings():
    plain, twin, _ = pair_of(Module)
    batches = [(torch.randn(6, 3, 32).double(), torch.randint(4, (6,))) for _ in range(4)]
    assert fit(twin, batches) == fit(plain, batches)
    assert twin.calls == plain.calls == ["fit", *["epoch"] * 3]
    assert_equal_parameters(twin, plain, 1e-9)


def test_requires_grad_and_mode_stay():
    model = Hybrid().eval()
    model.rnn.weight_hh_l0.requires_grad_(False)
    ours.accelerate(model)
    assert not model.rnn.training
    model(torch.randn(6, 3, 32)).sum().backward()
    assert model.rnn.weight_hh_l0.grad is None and model.rnn.weight_ih_l0.grad is not None
