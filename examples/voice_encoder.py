"""Who speaks: a published speaker encoder, made faster by one line, on a recorded conversation.

Network: Resemblyzer's VoiceEncoder (three LSTM layers of 256 units) with the weights that the PyPI
package Resemblyzer ships. Data: half a minute of two people talking, with the times of their turns,
the sample that the PyPI package pyannote.audio ships.

    python examples/voice_encoder.py

embeds every turn of at least 1.6 s (what the encoder was trained on) with torch's LSTM and with
fastrnn's, checks that the embeddings are the same to 1e-5, prints how alike the turns of the same
and of different speakers are, and the time that both need.
"""

import sys
import warnings
from itertools import combinations

import numpy as np
import torch

import fastrnn.torch
from compare import milliseconds
from packages import package_file

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # where it finds binary_dilation in SciPy
    try:
        import librosa
        from resemblyzer import VoiceEncoder, audio, normalize_volume
    except ModuleNotFoundError as error:
        sys.exit(
            f"{error.name} is missing: "
            'pip install ".[examples]" && pip install --no-deps -r examples/data.txt'
        )

RATE = 16_000
SHORTEST = 1.6  # seconds
TOLERANCE = 1e-5


def load_turns():
    """Return pairs of a speaker's name and the samples of one turn."""
    sample = package_file("pyannote.audio", "pyannote/audio/sample/sample.wav")
    wave, _ = librosa.load(sample, sr=RATE)
    turns = []
    for line in sample.with_suffix(".rttm").read_text().splitlines():
        _, _, _, start, duration, _, _, speaker, *_ = line.split()
        begin, length = float(start), float(duration)
        if length >= SHORTEST:
            turn = wave[round(begin * RATE) : round((begin + length) * RATE)]
            turns.append((speaker, normalize_volume(turn, -30, increase_only=True)))
    return turns


def partials(waves):
    """Return the mel spectrograms [N, 160, 40] of all stretches of 1.6 s, two a second."""
    stretches = []
    for wave in waves:
        _, slices = VoiceEncoder.compute_partial_slices(len(wave), rate=2, min_coverage=1)
        mel = audio.wav_to_mel_spectrogram(wave)
        stretches += [mel[s] for s in slices if s.stop <= len(mel)]
    return torch.from_numpy(np.array(stretches))


def print_similarities(turns, embeddings):
    """Print the cosines between the turns of one speaker, and between those of different ones."""
    cosines = {True: [], False: []}
    for (a, u), (b, v) in combinations(zip([s for s, _ in turns], embeddings, strict=True), 2):
        cosines[a == b].append(float(u @ v))
    for same, values in cosines.items():
        print(
            f"{'the same speaker' if same else 'different ones':18} cosine {np.mean(values):.2f}, "
            f"from {min(values):.2f} to {max(values):.2f} in {len(values)} pairs of turns"
        )


def main():
    turns = load_turns()
    waves = [wave for _, wave in turns]
    mels = partials(waves)
    encoder = VoiceEncoder("cpu", verbose=False).eval()

    @torch.inference_mode()
    def measure():
        """Return the embedding of each turn, and milliseconds for one stretch and for all."""
        embeddings = np.array([encoder.embed_utterance(wave) for wave in waves])
        return (
            embeddings,
            milliseconds(lambda: encoder(mels[:1])),
            milliseconds(lambda: encoder(mels)),
        )

    wanted, *torch_times = measure()
    print(fastrnn.torch.accelerate(encoder))
    got, *our_times = measure()

    print_similarities(turns, got)
    for count, theirs, ours in zip((1, len(mels)), torch_times, our_times, strict=True):
        print(
            f"{count:2} x 1.6 s of speech: torch {theirs:.1f} ms, fastrnn {ours:.1f} ms, "
            f"{theirs / ours:.1f} times as fast"
        )
    largest = np.abs(got - wanted).max()
    same = largest <= TOLERANCE
    print(f"embeddings: {'the same' if same else 'DIFFERENT'}, largest difference {largest:.1e}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
