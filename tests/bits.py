"""Problems that do not depend on any library's random numbers, and the hash of their results.

`python tests/bits.py` writes golden_bits.json anew: only after a deliberate change of the order
of operations, with a line in the changelog, as every stored result of a user changes with it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from support import CELLS, Net, Problem, run

GOLDEN = Path(__file__).with_name("golden_bits.json")


def splitmix(count, seed):
    """count multiples of 2^-23 in [-1, 1), exact in float32 (Steele, Lea & Flood 2014)"""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + golden * np.arange(1, count + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0


@dataclass(frozen=True)
class Golden:
    net: Net
    steps: int
    batch: int
    lengths: tuple | None = None
    gain: float = 0.5  # of the weights; large: chaotic, so that one wrong bit spreads

    def layer(self, **options):
        layer = self.net.build(**options)
        with layer.edit() as weights:
            for seed, w in enumerate(weights.values()):
                w[...] = (self.gain * splitmix(w.size, seed)).reshape(w.shape)
        return layer

    def problem(self):
        net = self.net

        def draw(seed, *shape):
            return splitmix(int(np.prod(shape)), seed).reshape(shape).astype(net.dtype)

        def state(seed):
            rows = net.layers * net.directions
            h = draw(seed, rows, self.batch, net.width)
            return (h, draw(seed + 1, rows, self.batch, net.hidden)) if net.has_c else (h,)

        lengths = None if self.lengths is None else np.array(self.lengths)
        x = draw(100, self.steps, self.batch, net.inputs)
        dy = draw(101, self.steps, self.batch, net.directions * net.width)
        return Problem(net, x, state(102), lengths, dy, state(104))

    def hashes(self, **options):
        results = run(self.layer(**options), self.problem())

        def sha(names):
            data = b"".join(
                results[n].astype(results[n].dtype.newbyteorder("<")).tobytes() for n in names
            )
            return hashlib.sha256(data).hexdigest()

        outputs = [n for n in ("y", "h", "c") if n in results]
        inputs = [n for n in ("dx", "dh0", "dc0") if n in results]
        weights = sorted(results.keys() - {*outputs, *inputs, "step_norms"})
        return {
            "outputs": sha(outputs),
            "input_gradients": sha(inputs),
            "weight_gradients": sha(weights),
            "step_norms": sha(["step_norms"]),
        }


def golden_cases():
    cases = {}
    for dtype in ("float32", "float64"):
        for cell in CELLS:
            net = Net(cell, 7, 19, layers=2, bidirectional=True, dtype=dtype)
            gain = 0.2 if cell == "rnn_relu" else 0.5
            cases[f"{cell}_{dtype}"] = Golden(net, 13, 5, (13, 4, 0, 9, 13), gain)
        net = Net("lstm", 7, 19, layers=2, proj=11, dtype=dtype)
        cases[f"lstm_proj_{dtype}"] = Golden(net, 13, 5)
        net = Net("lstm", 5, 48, dtype=dtype)
        cases[f"lstm_chaotic_{dtype}"] = Golden(net, 2000, 2, gain=1.5)
        net = Net("gru", 24, 70, dtype=dtype)
        cases[f"gru_wide_{dtype}"] = Golden(net, 40, 21, gain=0.2)
    return cases


if __name__ == "__main__":
    hashes = {name: case.hashes() for name, case in golden_cases().items()}
    GOLDEN.write_text(json.dumps(hashes, indent=1) + "\n")
