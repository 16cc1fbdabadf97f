"""DistributedDataParallel: two processes train an LSTM and get what one gets from the joined batch.

Data: the weekly CO2 record of Mauna Loa that comes with fastrnn; a window of 104 weeks is a
sequence, the changes of the next 4, 13 and 26 weeks are what is forecast at each of them.

    python examples/torch_ddp.py

starts two processes that talk over the loopback address (gloo). Each computes the gradients of its
half of every batch, DistributedDataParallel averages them. Then one process trains on the whole
batches, and the parameters are compared. On several machines, with `torchrun`, only the way the
processes find each other differs.
"""

import argparse
import os
import socket
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel

import fastrnn.torch
from fastrnn.demo import series

LOOPBACK, WORLD = "127.0.0.1", 2
WINDOW, BATCH = 104, 16
TOLERANCE = 1e-5  # float32: averaging two sums of eight rounds otherwise than one sum of sixteen


def load():
    """Return inputs [N, 104, 4] and targets [N, 104, 3]: windows of the training years."""
    record = series.load()
    task = series.make_task(record)
    end = record.first_held_out - series.YEAR - max(series.HORIZONS)  # targets end in these years
    arrays = (torch.from_numpy(a[:end]) for a in (task.inputs, task.targets))
    return [a.unfold(0, WINDOW, 1).transpose(1, 2).contiguous() for a in arrays]


class Forecaster(torch.nn.Module):
    """A recurrent layer of fastrnn and a linear read-out."""

    def __init__(self, hidden=64):
        super().__init__()
        self.lstm = fastrnn.torch.LSTM(4, hidden, batch_first=True)
        self.head = torch.nn.Linear(hidden, 3)

    def forward(self, x):
        y, _ = self.lstm(x)
        return self.head(y)


def train(model, steps, rank=0, world=1):
    """Train on every world-th row of each batch, beginning with row `rank`."""
    inputs, targets = load()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    order = torch.Generator().manual_seed(1)  # the same batches in every process
    for _ in range(steps):
        rows = torch.randint(len(inputs), (BATCH,), generator=order)[rank::world]
        optimizer.zero_grad()
        loss = mse_loss(model(inputs[rows]), targets[rows])
        loss.backward()
        optimizer.step()
    return loss.item()


def worker(rank, port, steps, file):
    """One process of the group: join, train, and let the first one write the parameters."""
    store = dist.TCPStore(LOOPBACK, port, timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    fastrnn.set_num_threads(1)
    torch.manual_seed(rank)  # DistributedDataParallel starts all of them from the first one's
    model = DistributedDataParallel(Forecaster())
    train(model, steps, rank, WORLD)
    if rank == 0:
        torch.save(model.module.state_dict(), file)
    dist.barrier()
    dist.destroy_process_group()
    # gloo's threads live on, for DistributedDataParallel keeps the group, and one that still has a
    # reference to let go of while the interpreter is being taken down aborts the process
    # (pytorch/pytorch#179291: 6 of 40 runs, fewer with the barrier). So nothing is taken down here.
    os._exit(0)


def train_distributed(steps):
    """Train in two processes; return the parameters."""
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    # A port that the system chooses, and where the processes meet
    store = dist.TCPStore(LOOPBACK, 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "parameters.pt"
        spawn(worker, (store.port, steps, file), nprocs=WORLD)
        return torch.load(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps

    start = time.perf_counter()
    distributed = train_distributed(steps)
    print(f"two processes: {steps} steps in {time.perf_counter() - start:.1f} s, with their start")

    torch.manual_seed(0)
    model = Forecaster()
    start = time.perf_counter()
    loss = train(model, steps)
    print(f"one process:   {steps} steps in {time.perf_counter() - start:.1f} s, loss {loss:.4f}")

    largest = max(
        (distributed[name] - parameter).abs().max().item()
        for name, parameter in model.state_dict().items()
    )
    same = largest <= TOLERANCE
    print(f"parameters:    {'the same' if same else 'DIFFERENT'}, largest difference {largest:.1e}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
