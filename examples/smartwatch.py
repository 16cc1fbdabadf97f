"""Smartwatch: convolutions and an LSTM recognise physiotherapy exercises from a wrist's motion.

Data: 140 recordings of seven shoulder exercises, ten people, both arms, six channels (accelerometer
and gyroscope) at 50 Hz, in the file `watch_dataset.npy` of the PyPI package seglearn.

Windows of four seconds, two apart, are classified; those of left arms are mirrored. Six people are
trained on, two choose the epoch, and two whom the network has never seen are the test, which is
looked at once, at the end.

    python examples/smartwatch.py

trains twice from the same weights, with torch's LSTM and with fastrnn's between the same
convolutions and the same read-out, and prints the accuracy on the test set and the time of both.
"""

import argparse
import copy
import time

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from compare import KINDS, use
from packages import package_file

WINDOW, STRIDE = 200, 100  # samples, 20 ms each
MIRROR = np.array([-1, 1, 1, 1, -1, -1])  # along x: accelerations turn there, rotations elsewhere
PEOPLE = {"train": range(1, 7), "validation": (7, 8), "test": (9, 10)}
BATCH = 64


def load():
    """Return a dict of (windows [N, 6, 200], exercises [N]) for train, validation and test."""
    # A pickled dict: as trustworthy as the package that it is a part of.
    file = package_file("seglearn", "seglearn/data/watch_dataset.npy")
    watch = np.load(file, allow_pickle=True).item()
    parts = {name: ([], []) for name in PEOPLE}
    columns = (watch[key] for key in ("X", "y", "subject", "side"))
    for motion, exercise, person, left in zip(*columns, strict=True):
        name = next(name for name, people in PEOPLE.items() if person in people)
        windows, exercises = parts[name]
        motion = motion * MIRROR if left else motion
        for start in range(0, len(motion) - WINDOW + 1, STRIDE):
            windows.append(motion[start : start + WINDOW].T)
            exercises.append(exercise)
    data = {
        name: (torch.tensor(np.array(windows), dtype=torch.float32), torch.tensor(exercises))
        for name, (windows, exercises) in parts.items()
    }
    windows = data["train"][0]  # the scale is that of what is trained on, and only that
    mean, scale = windows.mean(dim=(0, 2), keepdim=True), windows.std(dim=(0, 2), keepdim=True)
    return {name: ((w - mean) / scale, exercises) for name, (w, exercises) in data.items()}


class ConvLSTM(nn.Module):
    """Two strided convolutions see what happens in 0.2 s, an LSTM how that goes on for 4 s."""

    def __init__(self, channels=64, hidden=128, exercises=7):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(6, channels, kernel_size=7, stride=2, padding=3),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Conv1d(channels, channels, kernel_size=5, stride=2, padding=2),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
        )
        self.lstm = nn.LSTM(channels, hidden, num_layers=2, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(hidden, exercises))

    def forward(self, windows):  # [N, 6, 200]
        features = self.features(windows)  # [N, channels, 50]
        y, _ = self.lstm(features.transpose(1, 2))
        return self.head(y.mean(dim=1))


def train(model, data, epochs):
    """Train with AdamW; leave the model with the weights of the epoch that validates best."""
    windows, exercises = data["train"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    best, weights = -1.0, None
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(windows)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(windows[rows]), exercises[rows]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        score = accuracy(model, *data["validation"])
        if score > best:
            best, weights = score, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return best


@torch.inference_mode()
def accuracy(model, windows, exercises):
    """Return the share of windows whose exercise is recognised."""
    model.eval()
    return float((model(windows).argmax(dim=1) == exercises).float().mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    epochs = parser.parse_args().epochs
    data = load()
    print(
        ", ".join(
            f"{len(w)} windows of {len(PEOPLE[name])} people: {name}"
            for name, (w, _) in data.items()
        )
        + f"; {epochs} epochs"
    )
    seconds = {}
    for kind in KINDS:
        torch.manual_seed(0)
        model = ConvLSTM()
        use(kind, model)
        start = time.perf_counter()
        chosen = train(model, data, epochs)
        seconds[kind] = time.perf_counter() - start
        print(
            f"{kind:8} validation {chosen:.2%}, test {accuracy(model, *data['test']):.2%}, "
            f"trained in {seconds[kind]:.1f} s"
        )
    print(f"fastrnn trains {seconds['torch'] / seconds['fastrnn']:.1f} times as fast")


if __name__ == "__main__":
    main()
