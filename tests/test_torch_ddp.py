"""Two processes under DistributedDataParallel learn what one learns from the joined batch."""

import os
import socket
from datetime import timedelta

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pack_padded_sequence

import fastrnn
import fastrnn.torch as ours

if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("this torch was built without gloo", allow_module_level=True)

LOOPBACK, WORLD, STEPS, ROWS = "127.0.0.1", 2, 6, 8
LIMIT = timedelta(seconds=60)
LENGTHS = torch.tensor([7, 2, 5, 5, 1, 7, 3, 4])


class Layer(nn.Module):
    """ragged sequences, packed, through a stack of two directions"""

    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(3, 6, num_layers=2, bidirectional=True, dtype=torch.float64)

    def forward(self, x, lengths):
        y, _ = self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return y.data.square().sum()


class Cell(nn.Module):
    """a cell used at each step: the gradients of its weights come from all of them"""

    def __init__(self, kind):
        super().__init__()
        self.cell = kind(3, 6, dtype=torch.float64)

    def forward(self, x, lengths):
        state = None
        for step in x:
            state = self.cell(step, state)
        return (state[0] if isinstance(state, tuple) else state).square().sum()


CASES = {
    "RNN": lambda: Layer(ours.RNN),
    "LSTM": lambda: Layer(ours.LSTM),
    "GRU": lambda: Layer(ours.GRU),
    "LSTMCell": lambda: Cell(ours.LSTMCell),
    "accelerated on the way": lambda: Layer(nn.LSTM),
}


def train(case, rank=0, world=1):
    """the loss is a sum over rows, divided by all rows / world: its mean over ranks is the same"""
    model = CASES[case]()
    if world > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = torch.Generator().manual_seed(5)
    for step in range(STEPS):
        if case.startswith("accelerated") and step == 2:
            assert len(ours.accelerate(model).replaced) == 1
        x = torch.randn(7, ROWS, 3, generator=data, dtype=torch.float64)
        loss = model(x[:, rank::world], LENGTHS[rank::world]) * world / ROWS
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name.removeprefix("module."): p for name, p in model.state_dict().items()}


def worker(rank, port, folder):
    torch.set_num_threads(1)
    fastrnn.set_num_threads(1)
    store = dist.TCPStore(LOOPBACK, port, timeout=LIMIT)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD, timeout=LIMIT)
    results = {}
    for case in CASES:
        torch.manual_seed(rank)  # DistributedDataParallel starts both from the first one's
        results[case] = train(case, rank, WORLD)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # examples/torch_ddp.py says why


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """the parameters that each of the processes ended with, by case"""
    folder = tmp_path_factory.mktemp("ddp")
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    store = dist.TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "GLOO_SOCKET_IFNAME", loopback)
        torch.multiprocessing.spawn(worker, (store.port, folder), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns(distributed, case):
    torch.manual_seed(0)
    wanted = train(case)
    first, second = (results[case] for results in distributed)
    start = CASES[case]().state_dict()
    assert list(first) == list(wanted) == list(start)
    for name, parameter in wanted.items():
        torch.testing.assert_close(first[name], parameter, rtol=1e-11, atol=1e-12)
        assert torch.equal(first[name], second[name]), name
        assert not torch.equal(parameter, start[name]), f"{name} has not been trained"
