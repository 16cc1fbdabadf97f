"""The Python in the documents runs as it stands."""

import pytest

import fastrnn
from documents import PAGES, compiled, of_streaming, run
from support import random


@pytest.fixture
def blocks(request, tmp_path, monkeypatch):
    return compiled(request.param, tmp_path, monkeypatch)


@pytest.mark.parametrize(("blocks", "given"), PAGES.items(), indirect=["blocks"], ids=PAGES)
def test_every_block_runs(blocks, given):
    _, missing = run(blocks, given())
    if missing:
        pytest.skip(f"the other blocks ran; not installed: {', '.join(missing)}")


@pytest.mark.parametrize("blocks", ["docs/streaming.md"], indirect=True)
def test_blocks_of_different_lengths(blocks):
    """each stream is where it would be alone, and gave the same"""
    _, _, given, _ = of_streaming()
    space, _ = run(blocks[2:3], [given])
    stream = fastrnn.LSTM(3, 5, num_layers=2, seed=1).stream()
    for id, x in given["waiting"].items():
        stream.reset()
        assert space["results"][id].tobytes() == stream.process(x).tobytes()
        for found, wanted in zip(given["pool"].get_state(id), stream.state, strict=True):
            assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("blocks", ["docs/streaming.md"], indirect=True)
def test_new_weights(blocks):
    """go on from the memories of before"""
    *_, given = of_streaming()
    old = given["pool"]
    old.process(old.ids, random(4, len(old), 3))
    space, _ = run(blocks[3:4], [given])
    x = random(1, 3)
    for name, id in given["ids"].items():
        stream = given["lstm"].stream()
        stream.state = old.get_state(id)
        assert space["new"].step([space["ids"][name]], x).tobytes() == stream.step(x).tobytes()
