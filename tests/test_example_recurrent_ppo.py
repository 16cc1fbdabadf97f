"""examples/recurrent_ppo.py: an agent that learns and is shipped; needs the extra `examples`."""

import re

import numpy as np
import pytest

from support import example
from test_example_torch import replaced, run

ppo = example("recurrent_ppo", "torch", "sb3-contrib")
torch, fastrnn = ppo.torch, ppo.fastrnn
ROLLOUT = 1024  # 16 environments, 64 steps


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """as in the script"""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lstms(model):
    return [type(model.policy.lstm_actor), type(model.policy.lstm_critic)]


@pytest.fixture(scope="module")
def learned():
    model, _ = ppo.train("fastrnn", 30 * ROLLOUT)
    assert lstms(model) == [fastrnn.torch.LSTM] * 2
    fastrnn.torch.restore(model.policy)
    assert lstms(model) == [torch.nn.LSTM] * 2
    return model


@pytest.fixture
def actor(learned):
    return ppo.Actor(ppo.ship(learned.policy))


def test_both_learn_the_same():
    """Until rounding changes an action: with these settings and three seeds it did not in the 30
    rollouts of the script (parameters were 1.2e-6 apart then), with gamma 0.98 in the 15th."""
    untrained = [p.detach().clone() for p in ppo.agent().policy.parameters()]
    wanted, got = (ppo.train(kind, 4 * ROLLOUT)[0] for kind in ppo.KINDS)
    assert lstms(wanted) == [torch.nn.LSTM] * 2 and lstms(got) == [fastrnn.torch.LSTM] * 2
    for name in ("observations", "actions"):
        theirs, ours = (getattr(model.rollout_buffer, name) for model in (wanted, got))
        np.testing.assert_array_equal(ours, theirs)
    pairs = zip(untrained, wanted.policy.parameters(), got.policy.parameters(), strict=True)
    for before, theirs, ours in pairs:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert (theirs - before).abs().max() > 1e-3  # each has learned


def test_the_memory_is_what_balances(learned, actor):
    remembering = ppo.returns(actor)

    class Forgetful(ppo.Actor):
        def __call__(self, observation):
            self.reset()
            return super().__call__(observation)

    assert np.mean(remembering) > 120
    assert np.mean(ppo.returns(Forgetful(ppo.ship(learned.policy)))) < 60


def test_the_stream_acts_like_predict(learned, actor):
    decisions, others, largest = ppo.compare(learned, actor, ppo.SEEDS[:6])
    assert decisions > 500 and others == 0
    assert largest <= ppo.TOLERANCE
    for seed in ppo.SEEDS[:3]:  # also where its own actions lead
        theirs, ours = ppo.play(ppo.Predict(learned), seed), ppo.play(actor, seed)
        for a, b in zip(theirs, ours, strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_actor_is_noticed(learned):
    """one weight that differs by a hundredth"""
    layers = fastrnn.load(ppo.ship(learned.policy))
    with layers["lstm"].edit() as weights:
        weights["bias_hh_l0"][ppo.HIDDEN] += 0.01
    file = ppo.io.BytesIO()
    fastrnn.save(file, layers)
    _, _, largest = ppo.compare(learned, ppo.Actor(file.getvalue()), ppo.SEEDS[:1])
    assert largest > 10 * ppo.TOLERANCE


def test_velocities_are_hidden():
    env = ppo.environment()
    env.reset(seed=3)
    shown, *_ = env.step(1)
    position, _, angle, _ = env.unwrapped.state
    assert env.observation_space.shape == shown.shape == (2,) and shown.dtype == np.float32
    assert env.observation_space.contains(shown)
    np.testing.assert_allclose(shown, [position / 2.4, np.degrees(angle) / 12], rtol=1e-6)


def test_script():
    printed = run("recurrent_ppo", "--steps", str(4 * ROLLOUT))
    assert replaced(printed) == ["lstm_actor", "lstm_critic"]
    scores = dict(re.findall(r"^(.+\S) +mean return (\d+), from", printed, re.MULTILINE))
    assert list(scores) == ["torch", "fastrnn", "no memory"]
    assert scores["torch"] == scores["fastrnn"]  # so early
    assert "decisions: the same, 0 others of" in printed
    assert printed.count(" us a decision: ") == 3
