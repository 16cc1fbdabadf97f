"""Hypothesis over all options together, against the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import (
    CELLS,
    LAYOUTS,
    Net,
    assert_close,
    assert_same_bits,
    expected,
    in_layout,
    packed,
    problem,
    results_of,
    run,
)

pytestmark = pytest.mark.usefixtures("isa")

sizes = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 33]))


@st.composite
def nets(draw):
    cell = draw(st.sampled_from(CELLS))
    hidden = draw(sizes)
    return Net(
        cell,
        inputs=draw(sizes),
        hidden=hidden,
        layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        proj=draw(st.integers(0, hidden - 1)) if cell == "lstm" else 0,
        dtype=draw(st.sampled_from(["float32", "float64"])),
    )


@st.composite
def problems(draw):
    net = draw(nets())
    steps, batch = draw(st.integers(0, 8)), draw(st.integers(0, 9))
    lengths = draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    if lengths is not None:
        lengths = np.array(lengths, np.int64)
    p = problem(net, steps, batch, lengths, seed=draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        p = replace(p, state=None)
    given_gradients = draw(st.sampled_from(["both", "dy", "dstate", "dh", "dc"]))
    if given_gradients == "dy":
        return replace(p, dstate=None)
    if given_gradients == "dstate":
        return replace(p, dy=None)
    if net.has_c and given_gradients == "dh":
        return replace(p, dstate=(p.dstate[0], None))
    if net.has_c and given_gradients == "dc":
        return replace(p, dy=None, dstate=(None, p.dstate[1]))
    return p


def run_with(layer, p, batch_first, layouts):
    def outside(a, layout):
        return a if a is None else in_layout(a.swapaxes(0, 1) if batch_first else a, layout)

    def inside(a):
        return a.swapaxes(0, 1) if batch_first else a

    x, dy = outside(p.x, layouts[0]), outside(p.dy, layouts[1])
    y, state, tape = layer.forward(x, packed(p.state), lengths=p.lengths)
    g = layer.backward(tape, dy, packed(p.dstate), step_norms=True)
    norms = g.step_norms.swapaxes(1, 2) if batch_first else g.step_norms
    return results_of(inside(y), state, replace(g, input=inside(g.input), step_norms=norms))


@settings(max_examples=400)
@given(
    problems(),
    st.booleans(),
    st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    st.integers(1, 4),
)
def test_every_combination_matches_the_reference(p, batch_first, layouts, threads):
    layer = p.net.build(batch_first=batch_first, num_threads=threads)
    actual = run_with(layer, p, batch_first, layouts)
    wanted = expected(layer.state_dict(), p)
    # A gradient of one or two elements is a sum that may cancel: measure it by the others too.
    gradients = (a for name, a in wanted.items() if name not in ("y", "h", "c"))
    floor = 0.1 * max(np.abs(a).max(initial=0) for a in gradients)
    assert_close(actual, wanted, p.net.dtype, floor)


@settings(max_examples=150)
@given(problems(), st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)), st.data())
def test_layout_and_threads_do_not_change_a_bit(p, layouts, data):
    plain = run(p.net.build(num_threads=1), p)
    threads, batch_first = data.draw(st.integers(2, 4)), data.draw(st.booleans())
    layer = p.net.build(batch_first=batch_first, num_threads=threads)
    assert_same_bits(run_with(layer, p, batch_first, layouts), plain)
