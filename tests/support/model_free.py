"""Small model-free guiders, some updates of them, and what their networks make of what was collected."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from gps.guiders.learner import LearnerSettings, NetworkSettings
from gps.guiders.model_free.batch import make_batch
from gps.guiders.model_free.guider import ModelFree
from gps.guiders.model_free.settings import (
    SETTINGS,
    NetworksSettings,
    PenaltySettings,
    PpoSettings,
    SittSettings,
    TeacherSettings,
)
from gps.guiders.model_free.unroll import values_after
from support.toys import Clock

CLOCK, LOST = Clock(), Clock(ends=(0, 1, 2), name="lost")
N, L = 4, 8


@functools.cache
def guider_of(
    name: str,
    task=CLOCK,
    memory: int = 0,
    shared: bool = True,
    penalty=None,
    sitt=None,
    run="",
    teacher_head=False,
    **ppo,
) -> ModelFree:
    """A small one; teachers are trained for two updates, or taken from a run; half of the steps are for a student."""
    settings = SETTINGS[name]()
    changes = {
        "learner": LearnerSettings(NetworkSettings(hidden=(8,), memory=memory)),
        "ppo": PpoSettings(**{"environments": N, "unroll": L, "updates": 2, "epochs": 2, "minibatches": 2} | ppo),
        "networks": NetworksSettings(shared=shared),
        "teacher": TeacherSettings(updates=2, run=run, shared_head=teacher_head),
        "penalty": penalty or PenaltySettings(),
        "sitt": sitt or SittSettings(paired=0.5, epochs=2, minibatches=1),
    }
    changes = {name: value for name, value in changes.items() if hasattr(settings, name)}
    return ModelFree(name, task, dataclasses.replace(settings, **changes))


@functools.cache
def programs(guider: ModelFree):
    """To collect and to update."""
    return jax.jit(guider.collect), jax.jit(guider.update)


@functools.cache
def updated(guider: ModelFree, count: int):
    """The state before each of some updates and after the last one, what was collected for each, and the metrics."""
    collect, update = programs(guider)
    states, samples, rows = [jax.jit(guider.init)(jax.random.key(0))], [], []
    for i in range(count):
        samples.append(collect(states[-1], jax.random.key(2 * i + 1)))
        state, metrics = update(states[-1], samples[-1], jax.random.key(2 * i + 2))
        states.append(state)
        rows.append(metrics)
    return states, samples, rows


@functools.cache
def viewing(guider: ModelFree):
    """Of a state and an unroll: what is seen, the batch to learn from, and the memories after it."""

    @jax.jit
    def view(state, unroll):
        seen = guider.networks.normalized(state.normalizers, unroll.obs)
        policy, before = (state.params, state.normalizers), state.running.memories
        batch = make_batch(guider.networks, guider.settings, guider.plan, policy, before, unroll, guider.window)
        return seen, *batch

    return view


@functools.cache
def acting(guider: ModelFree):
    """Of a state and observations (L N ...): the outputs of every policy, which has no memory."""

    @jax.jit
    def act(state, obs):
        networks = guider.networks
        seen = networks.normalized(state.normalizers, obs)
        first = jnp.zeros((L, N), bool)
        ran = networks.run(state.params, networks.method.policies, networks.start_memories(N), seen, first)
        return {name: z for name, (_, z) in ran.items()}

    return act


@functools.cache
def valuing(guider: ModelFree):
    """Of a state and an unroll: the values of each critic before every step and after it."""

    @jax.jit
    def values_of(state, unroll):
        networks, finals = guider.networks, {}
        seen, after = (networks.normalized(state.normalizers, obs) for obs in (unroll.obs, unroll.final))
        critics = networks.method.critics
        ran = networks.run(state.params, critics, state.running.memories, seen, unroll.first)
        for critic, (hs, _) in ran.items():
            finals[critic] = values_after(networks, state.params, critic, hs, after, jnp.ones((L, N), bool))
        return {critic: values for critic, (_, values) in ran.items()}, finals

    return values_of


def softplus(x) -> np.ndarray:
    return np.log1p(np.exp(np.asarray(x, float)))


def kl(p, q) -> np.ndarray:
    """Between tanh-Gaussians of two dimensions, by the formula for Gaussians, in nats."""
    (m, s), (n, r) = ((np.asarray(z[..., :2], float), softplus(z[..., 2:]) + 1e-3) for z in (p, q))
    return (np.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5).sum(-1)


def thrown(state):
    """The state with policies that are far from each other."""
    params = {
        name: jax.tree.map(
            lambda p, i=i: p + 0.3 * jnp.cos(i + jnp.arange(p.size)).reshape(p.shape), state.params[name]
        )
        for i, name in enumerate(("guider", "learner", "proxy"))
    }
    return dataclasses.replace(state, params=state.params | params)


def same(one, other) -> bool:
    """To the last bit."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def finite(tree) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
