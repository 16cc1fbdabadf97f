"""Models of PyTorch, as users write them, and how close two of them are; needs torch."""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrizations

import fastrnn.torch as ours

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
TRAINED = {torch.float32: 1e-4, torch.float64: 1e-10}  # after some steps, which amplify rounding


class Hybrid(nn.Module):
    """convolutions, then a recurrent layer"""

    example = (6, 3, 32)

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(3, 8, 5, stride=2), nn.BatchNorm1d(8), nn.ReLU())
        self.rnn = nn.GRU(8, 10, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(20, 4)

    def forward(self, x):
        y, _ = self.rnn(self.features(x).transpose(1, 2))
        return self.head(y[:, -1])


class Stateful(nn.Module):
    """user code that passes the state on: lstm(x, (h, c))"""

    example = (12, 6, 3)

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 10, proj_size=4)
        self.h0 = nn.Parameter(torch.randn(1, 1, 4) / 3)
        self.c0 = nn.Parameter(torch.randn(1, 1, 10) / 3)

    def forward(self, x):
        rows = x.shape[1]
        h, c = self.h0.expand(-1, rows, -1), self.c0.expand(-1, rows, -1)
        first, (h, c) = self.lstm(x[:6], (h.contiguous(), c.contiguous()))
        second, (h, c) = self.lstm(x[6:], (h, c))
        return torch.cat([first, second]).sum(0) + h[0] + c[0, :, :4]


class Decoder(nn.Module):
    """cells in the user's own loop over time"""

    example = (5, 6, 3)

    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleDict(
            {
                "rnn": nn.RNNCell(3, 7, nonlinearity="relu"),
                "gru": nn.GRUCell(7, 6),
                "lstm": nn.LSTMCell(6, 4),
            }
        )

    def forward(self, x):
        rnn = gru = lstm = None
        for step in x:
            rnn = self.cells["rnn"](step, rnn)
            gru = self.cells["gru"](rnn, gru)
            lstm = self.cells["lstm"](gru, lstm)
        return lstm[0]


class First(nn.Module):
    def forward(self, pair):
        return pair[0]


class Output(nn.Module):
    """like First, with types for TorchScript"""

    def forward(self, pair: tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]):
        return pair[0]


class Chain(nn.Sequential):
    example = (9, 6, 3)

    def __init__(self):
        super().__init__(
            nn.RNN(3, 8), First(), nn.Sequential(nn.Linear(8, 5), nn.Tanh()), nn.LSTM(5, 4), First()
        )


class Alone(nn.LSTM):
    """stands for nn.LSTM itself as the model"""

    example = (9, 6, 3)

    def __new__(cls):
        return nn.LSTM(3, 8, num_layers=2)


MODELS = (Hybrid, Stateful, Decoder, Chain, Alone)


def tensor_of(result):
    """the first tensor of nested tuples"""
    while isinstance(result, tuple):
        result = result[0]
    return result


def pair_of(model, dtype=torch.float64):
    """two equal models, the second accelerated, and an input for both"""
    plain = model().to(dtype)
    twin = copy.deepcopy(plain)
    report = ours.accelerate(twin)
    assert report.replaced and not report.left
    return plain, twin, torch.randn(*model.example, dtype=dtype)


def assert_near(actual, wanted, tolerance):
    torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance)


def assert_equal_parameters(model, wanted, tolerance):
    assert list(model.state_dict()) == list(wanted.state_dict())
    for name, value in wanted.state_dict().items():
        assert_near(model.state_dict()[name], value, tolerance)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.AdamW(p, lr=1e-2, eps=1e-3),
    "foreach": lambda p: torch.optim.RMSprop(p, lr=1e-3, eps=1e-3, foreach=True),
}


def train_step(model, optimizer, x):
    optimizer.zero_grad()
    tensor_of(model(x)).square().mean().backward()
    optimizer.step()


def normed(module, name="weight_hh_l0"):
    return parametrizations.weight_norm(module, name)
