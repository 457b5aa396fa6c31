"""What model-free guiders collect: unrolls of many environments side by side, and the advantages made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gps.guiders.model_free.networks import Networks, Observations
from gps.pytrees import select
from gps.tasks.images import image
from gps.tasks.task import Environment, State, diverged, observed, reported

TOLD = ("novel", "success")  # metrics of tasks that mean something in training


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Running:
    """N environments between two unrolls."""

    states: State  # leading N
    first: Bool[Array, " N"]  # the next step is the first of an episode
    returns: Float[Array, " N"]  # of each episode so far
    memories: dict[str, Float[Array, "N H"]]  # of policies and critics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Unroll:
    """L steps of N environments. A step that diverged ends its episode with reward 0.

    An episode whose very start has no plausible observation ends with its first step; it is observed as zeros.
    """

    obs: Observations  # L N ..., before each step
    observed: Bool[Array, "L N"]  # False where `obs` are zeros in place of what is no observation
    final: Observations  # L N ..., after it, before any reset
    first: Bool[Array, "L N"]
    action: Array  # raw, L N (nu)
    log_prob: Float[Array, "L N"]  # of the policy that acted
    reward: Float[Array, "L N"]
    done: Bool[Array, "L N"]
    truncated: Bool[Array, "L N"]  # done by the time limit alone
    returned: Float[Array, "L N"]  # return of the episode that ended with this step, NaN where none did
    diverged: Bool[Array, "L N"]
    # Metrics of the state after it: "novel" and "success", of tasks that have them, and those that the task reports.
    told: dict[str, Float[Array, "L N"]]

    def losses(self, before: Array) -> dict[str, Array]:
        """Metrics: how many steps diverged, and in which environment and at which step of it the first did, or NaN.

        Args:
            before: unrolls of this run before this one.
        """
        L, N = self.diverged.shape
        index, some = jnp.argmax(self.diverged), self.diverged.any()
        return {
            "diverged_samples": self.diverged.sum(),
            "first_diverged_environment": jnp.where(some, index % N, jnp.nan),
            "first_diverged_step": jnp.where(some, before * L + index // N, jnp.nan),
        }


def collect(
    task: Environment,
    networks: Networks,
    acting: tuple[tuple[str, ...], Array],
    policy: tuple[dict[str, Any], dict[str, Any]],
    running: Running,
    key: PRNGKeyArray,
    length: int,
    shown: int = 0,
) -> tuple[Running, Unroll]:
    """Let each of N environments be acted in for `length` steps; episodes that end begin anew.

    Args:
        acting: the policies that may act, and (N) which of them does in each environment.
        policy: parameters and normalisers.
        shown: of how many environments, the first ones, to look at each step.

    Returns:
        Where the environments are afterwards (memories of policies that did not act are as before), and the unroll.
    """
    (params, normalizers), (names, who) = policy, acting
    count = len(who)
    # each draw is a program of its own, and compiles twice as long where it is not flat
    keys = jax.random.split(key, 1 + length * count)
    noise = networks.distribution.noise(keys[0], (length * count,)).reshape(length, count, -1)
    reset, step = jax.vmap(task.reset), jax.vmap(task.step)

    def begun_anew(done: Array, keys: PRNGKeyArray) -> State:
        # on the host a reset may take long: one is made for those that need none, whose states are not taken
        return reset(jnp.where(done, keys, keys[jnp.argmax(done)]) if task.calls_host else keys)

    def turn(carry: Running, inputs):
        noise, keys = inputs
        known = jax.vmap(observed)(carry.states)
        obs = {name: jnp.where(known[:, None], o, 0.0) for name, o in carry.states.obs.items()}
        if shown:
            images = jax.vmap(lambda state: image(task, state))(jax.tree.map(lambda a: a[:shown], carry.states))
            obs["image"] = jnp.where(known[:shown, None], images, 0.0).astype(jnp.float16)  # they are most of an unroll
        seen = jax.tree.map(lambda x: x[None], networks.normalized(normalizers, obs))
        ran = networks.run(params, names, carry.memories, seen, carry.first[None])
        z: Array = ran[names[0]][1][0]
        for i, name in enumerate(names[1:], start=1):
            z = jnp.where((who == i)[:, None], ran[name][1][0], z)
        memories = carry.memories | {name: hs[0] for name, (hs, _) in ran.items()}
        action = networks.distribution.sample(z, noise)
        after = step(carry.states, networks.distribution.environment(action))

        sound = known & ~jax.vmap(diverged)(after)
        done = (after.done > 0) | ~sound
        reward = jnp.where(sound, after.reward, 0.0)
        returns = carry.returns + reward
        final = jax.tree.map(lambda o: jnp.where(sound[:, None], o, 0.0), after.obs)
        told = {name: after.metrics[name] for name in (*TOLD, *reported(task)) if name in after.metrics}

        unroll = Unroll(
            obs=obs,
            observed=known,
            final=final,
            first=carry.first,
            action=action,
            log_prob=networks.distribution.log_prob(z, action),
            reward=reward,
            done=done,
            truncated=done & sound & (after.info["truncation"] > 0),
            returned=jnp.where(done, returns, jnp.nan),
            diverged=~sound,
            told={name: jnp.where(sound, value, 0.0 if name in TOLD else jnp.nan) for name, value in told.items()},
        )
        states = jax.lax.cond(done.any(), lambda: select(done, begun_anew(done, keys), after), lambda: after)
        return Running(states, done, jnp.where(done, 0.0, returns), memories), unroll

    return jax.lax.scan(turn, running, (noise, keys[1:].reshape(length, count)))


def advantages(
    rewards: Float[Array, "L N"],
    values: Float[Array, "L N"],
    finals: Float[Array, "L N"],
    done: Bool[Array, "L N"],
    truncated: Bool[Array, "L N"],
    discount: float,
    trace: float,
) -> Float[Array, "L N"]:
    """Generalised advantage estimates; an episode that the time limit cut goes on in the value of its last state.

    Args:
        values: of the state before each step.
        finals: of the state after it, before any reset; read where it was truncated and at the end of the unroll.

    Source:
        Schulman et al., "High-dimensional continuous control using generalized advantage estimation", ICLR 2016;
        Pardo et al., "Time limits in reinforcement learning", ICML 2018.
    """
    following = jnp.concatenate([values[1:], finals[-1:]])
    at_end: Array = jnp.where(truncated, finals, 0.0)
    following = jnp.where(done, at_end, following)
    errors = rewards + discount * following - values

    def back(advantage: Array, inputs):
        error, done = inputs
        kept: Array = jnp.where(done, 0.0, advantage)
        advantage = error + discount * trace * kept
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros(values.shape[1:]), (errors, done), reverse=True)[1]


def values_after(networks: Networks, params, critic: str, memories: Float[Array, "L N H"], seen_after, needed) -> Array:
    """Values (L N) of the states after each step, as far as `advantages` reads them; 0 in steps where it reads none.

    Args:
        memories: of the critic after each step.
        seen_after: what is seen of these states, normalised.
        needed: where they are read, besides the last step.
    """
    L, N = needed.shape
    # so many steps at a time: a loop of a few large parts, most of which need nothing
    rows = next(rows for rows in (64, 32, 16, 8, 4, 2, 1) if L % rows == 0 and (rows * N <= 512 or rows == 1))

    def part(inputs):
        memory, seen, needed = inputs
        run = lambda: networks.run(params, (critic,), {critic: memory}, seen, jnp.zeros((1, rows * N), bool))  # noqa: E731
        return jax.lax.cond(needed.any(), lambda: run()[critic][1][0], lambda: jnp.zeros(rows * N))

    needed = needed.at[-1].set(True).reshape(L // rows, rows * N)
    memories = memories.reshape(L // rows, rows * N, memories.shape[-1])
    seen_after = jax.tree.map(lambda x: x.reshape(L // rows, 1, rows * N, *x.shape[2:]), seen_after)
    return jax.lax.map(part, (memories, seen_after, needed)).reshape(L, N)
