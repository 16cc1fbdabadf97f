"""Reinforcement learning with a memory: balancing a pole without seeing how fast it falls.

Agent: RecurrentPPO of the PyPI package sb3-contrib, with an LSTM for the actor and another for the
critic. Task: CartPole of gymnasium; of cart and pole only the positions are shown, so the speeds
have to be inferred from what is remembered. An episode ends when the pole falls, or after 500
steps.

    python examples/recurrent_ppo.py

trains the same agent from the same seed with torch's LSTM and with fastrnn's, and as a baseline an
agent without a memory (PPO of stable-baselines3), and prints the mean return and the time of each.
Then it ships the actor: its layers as fastrnn's, from the bytes of one safetensors file, act frame
by frame in a stream, without torch, and are compared with sb3's `predict`.
"""

import argparse
import io
import sys
import time

import gymnasium
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

import fastrnn.torch
from compare import KINDS, milliseconds, use

HIDDEN = 32
LIMITS = np.array([2.4, np.radians(12)], np.float32)  # where an episode ends
SEEDS = range(1000, 1020)  # of the episodes to judge by; training never sees them
TOLERANCE = 1e-5  # of a logit


class Positions(gymnasium.ObservationWrapper):
    """CartPole without the velocities: x and angle, both over the limit."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)

    def observation(self, observation):
        return observation[[0, 2]] / LIMITS


def environment():
    return Positions(gymnasium.make("CartPole-v1"))


def agent(memory=True, seed=0):
    """Return an untrained agent; its weights, its actions and its 16 environments are seeded."""
    kind, name = (RecurrentPPO, "MlpLstmPolicy") if memory else (PPO, "MlpPolicy")
    policy = {"net_arch": {"pi": [HIDDEN], "vf": [HIDDEN]}, "ortho_init": False}
    if memory:
        policy["lstm_hidden_size"] = HIDDEN
    return kind(
        name,
        DummyVecEnv([environment] * 16),
        n_steps=64,
        batch_size=512,
        n_epochs=5,
        gamma=0.99,
        gae_lambda=0.95,
        learning_rate=lambda left: 5e-3 * left,  # left falls from 1 to 0
        policy_kwargs=policy,
        seed=seed,
        device="cpu",
    )


class Predict:
    """sb3's way to act: `predict`, which takes the memory and returns it."""

    def __init__(self, model):
        self.model, self.state = model, None

    def reset(self):
        self.state = None  # predict begins with zeros

    def __call__(self, observation):
        action, self.state = self.model.predict(observation, self.state, deterministic=True)
        return int(action)


def ship(policy):
    """Return the actor of an sb3 policy, its layers as fastrnn's, as the bytes of one file."""
    lstm, hidden, head = policy.lstm_actor, policy.mlp_extractor.policy_net[0], policy.action_net
    layers = {
        "lstm": fastrnn.LSTM(lstm.input_size, lstm.hidden_size),
        "hidden": fastrnn.Linear(hidden.in_features, hidden.out_features),
        "head": fastrnn.Linear(head.in_features, head.out_features),
    }
    for layer, trained in zip(layers.values(), (lstm, hidden, head), strict=True):
        layer.load_state_dict({k: v.numpy() for k, v in trained.state_dict().items()})
    file = io.BytesIO()
    fastrnn.save(file, layers)
    return file.getvalue()


class Actor:
    """What is shipped: NumPy and fastrnn, no torch. The memory is in the stream."""

    def __init__(self, file):
        layers = fastrnn.load(file)
        self.hidden, self.head = layers["hidden"], layers["head"]
        self.stream = layers["lstm"].stream()

    def reset(self):
        self.stream.reset()

    def logits(self, observation):
        return self.head(np.tanh(self.hidden(self.stream.step(observation))))

    def __call__(self, observation):
        return int(self.logits(observation).argmax())


def play(act, seed):
    """Return the observations [T, 2] and the actions [T] of one episode; T is its return."""
    env, observations, actions, over = environment(), [], [], False
    act.reset()
    observation, _ = env.reset(seed=seed)
    while not over:
        observations.append(observation)
        actions.append(act(observation))
        observation, _, fallen, late, _ = env.step(actions[-1])
        over = fallen or late
    return np.array(observations), np.array(actions)


def returns(act, seeds=SEEDS):
    return [len(play(act, seed)[1]) for seed in seeds]


@torch.inference_mode()
def compare(model, actor, seeds=SEEDS):
    """Of episodes that `predict` plays: decisions, other ones of the actor, and the largest
    difference of a logit."""
    decisions, others, largest = 0, 0, 0.0
    for seed in seeds:
        observations, actions = play(Predict(model), seed)
        y, _ = model.policy.lstm_actor(torch.from_numpy(observations))  # as one sequence
        wanted = model.policy.action_net(model.policy.mlp_extractor.forward_actor(y)).numpy()
        actor.reset()
        logits = np.array([actor.logits(observation) for observation in observations])
        decisions += len(actions)
        others += int((logits.argmax(axis=1) != actions).sum())
        largest = max(largest, float(np.abs(logits - wanted).max()))
    return decisions, others, largest


def train(kind, steps):
    """Return an agent with torch's LSTMs, fastrnn's or none, and the seconds that it learned."""
    model = agent(memory=kind in KINDS)
    use(kind, model.policy)
    start = time.perf_counter()
    model.learn(steps)
    seconds = time.perf_counter() - start
    scores = returns(Predict(model))
    print(
        f"{kind:9} mean return {np.mean(scores):.0f}, from {min(scores)} to {max(scores)}, "
        f"{steps} steps in {seconds:.1f} s"
    )
    return model, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30_720)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)  # beside another job a second one made both several times slower
    (_, theirs), (model, ours), _ = (train(kind, steps) for kind in (*KINDS, "no memory"))
    print(f"fastrnn trains {theirs / ours:.1f} times as fast")

    def print_time(name, act):
        spent = milliseconds(lambda: act(np.zeros(2, np.float32)), 2000) * 1e3
        print(f"{spent:7.1f} us a decision: {name}")

    actor = Actor(ship(model.policy))
    print_time("stream", actor)
    print_time("sb3's predict, fastrnn", Predict(model))
    fastrnn.torch.restore(model.policy)
    print_time("sb3's predict, torch", Predict(model))

    decisions, others, largest = compare(model, actor)
    same = others == 0 and largest <= TOLERANCE
    print(
        f"decisions: {'the same' if same else 'DIFFERENT'}, {others} others of {decisions}, "
        f"largest difference of a logit {largest:.1e}"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
