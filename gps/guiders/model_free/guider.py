"""Model-free guidance: a privileged policy improved by PPO, and a learner that imitates it, in one compiled step.

One update collects an unroll of every environment and then minimises the terms of the method's objective for some
epochs; `methods` says which terms, `losses` what they are. The four phases of guided policy
search are terms of one loss here: improve (L1), teach (L2), pull back (L3), and the learner's own gradient (L4).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from gps.columns import Column, known, short
from gps.guiders.guider import Metrics
from gps.guiders.model_free.losses import Batch, Objective
from gps.guiders.model_free.methods import METHODS
from gps.guiders.model_free.roles import Roles
from gps.guiders.model_free.settings import DEFAULTS
from gps.guiders.model_free.stages import TEACHER_FIRST, Stage, Terms, main_stage, window_length
from gps.guiders.model_free.unroll import Running, Unroll, advantages, collect, finals_of
from gps.pytrees import all_finite, bare, keyed, select
from gps.settings import unknown
from gps.tasks.check import check_environment
from gps.tasks.task import Environment
from policies.network import NetworkPolicy


@dataclass(frozen=True)
class Teacher:
    """A privileged policy that another run has trained."""

    params: Any
    normalizer: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ModelFreeState:
    """What one update hands to the next."""

    params: dict[str, Any]  # of policies and critics
    optimizer: dict[str, Any]  # of each of them: a network that is not trained for a while keeps its moments
    normalizers: dict[str, Any]  # of what guider and learner see
    running: Running  # with bare random keys
    alpha: Float[Array, ""]  # weight of the pull back of GPO-penalty
    updates: Array  # done so far


class ModelFree:
    """See `gps.guiders.guider.Guider` and the top of this file."""

    columns = (
        Column("train_return", "training", short),
        Column("kl_to_learner", "KL", known),
        Column("learner_entropy", "entropy", known),
    )

    def __init__(self, name: str, task: Environment, settings: Any):
        if name not in METHODS:
            raise unknown("model-free guider", name, METHODS)
        kind = type(DEFAULTS[name])
        if not isinstance(settings, kind):
            raise ValueError(f"settings of guider {name!r} must be {kind.__name__}, not {type(settings).__name__}")
        check_environment(task)
        self.name = name
        self.task = task
        self.settings = settings
        method, ppo = METHODS[name], settings.ppo
        imitation = getattr(settings, "imitation", None)
        if not task.privileged_size and (method.guider != "none" or method.critic == "guider"):
            raise ValueError(
                f"guider {name!r} needs a privileged observation, which {task.name} has not: take 'ppo', or give "
                "the task's observations a 'privileged_state'"
            )
        self.roles = Roles.make(method, imitation is not None and imitation.shared, task, settings.network)
        self.window = window_length(settings.network.memory, ppo)
        if method.acts == "halves" and ppo.environments % 2:
            raise ValueError(
                f"guider.ppo.environments must be even for {name}, whose two policies share them, not "
                f"{ppo.environments}"
            )
        self.objective = Objective(self.roles, settings)
        self.updates = ppo.updates
        self.fused = not task.calls_host
        self.steps_per_iteration = ppo.updates * ppo.environments * ppo.unroll
        self._main = main_stage(method)
        self._first: Stage | None = None
        self.teacher_run = settings.teacher.run if method.guider == "frozen" else ""
        if method.guider == "frozen" and not self.teacher_run:
            self._first = TEACHER_FIRST
        self._adam = optax.chain(optax.clip_by_global_norm(ppo.gradient_norm), optax.adam(ppo.learning_rate, eps=1e-5))

    def init(self, key: PRNGKeyArray) -> ModelFreeState:
        """Fresh networks, and environments at the start of an episode."""
        networks, starting = jax.random.split(key)
        count = self.settings.ppo.environments
        params, normalizers = self.roles.start(networks), self.roles.start_normalizers()
        states = jax.vmap(self.task.reset)(jax.random.split(starting, count))
        memories = self.roles.start_memories(count)
        running = Running(bare(states), jnp.ones(count, bool), jnp.zeros(count), memories)
        zero = jnp.zeros((), jnp.int32)
        if self.roles.method.pull == "backtrack":
            params = self.roles.backtracked(params)
        optimizer = {name: self._adam.init(own) for name, own in params.items()}
        return ModelFreeState(params, optimizer, normalizers, running, jnp.zeros(()), zero)

    def adopt(self, state: ModelFreeState, teacher: Teacher) -> ModelFreeState:
        """The state before the first iteration, with the teacher of another run in the guider's place."""
        params = {**state.params, "guider": teacher.params}
        normalizers = {**state.normalizers, "guider": teacher.normalizer}
        return dataclasses.replace(state, params=params, normalizers=normalizers)

    def teacher(self, state: ModelFreeState) -> Teacher:
        """What another run can adopt.

        Errors:
            ValueError where there is no privileged policy, or one that is not trained to its end.
        """
        method = self.roles.method
        if "guider" not in method.roles or method.pull == "backtrack":
            raise ValueError(
                f"{self.name} keeps no privileged policy: take a run of 'ppo-bc', or of a method that trains its "
                "teacher first"
            )
        if self._first is not None and state.updates < self.settings.teacher.updates:
            raise ValueError(
                f"it has had {int(state.updates)} of the {self.settings.teacher.updates} updates of its teacher: "
                "bring that run to its end first (gps train --resume)"
            )
        return Teacher(state.params["policy" if self.roles.shared else "guider"], state.normalizers["guider"])

    def collect(self, state: ModelFreeState, key: PRNGKeyArray) -> tuple[Running, Unroll]:
        """Unroll whoever acts in every environment."""
        ppo = self.settings.ppo
        reset = jax.eval_shape(jax.vmap(self.task.reset), jax.random.split(jax.random.key(0), ppo.environments))
        running = dataclasses.replace(state.running, states=keyed(state.running.states, reset))
        acting, who = self._acting(state)
        policy = (state.params, state.normalizers)
        after, unroll = collect(self.task, self.roles, acting, who, policy, running, key, ppo.unroll)
        return dataclasses.replace(after, states=bare(after.states), memories=state.running.memories), unroll

    def check(self, samples: tuple[Running, Unroll]) -> None:
        """Nothing to stop for: steps that diverged end their episodes, and metrics count them."""

    def policy(self, state: ModelFreeState) -> NetworkPolicy:
        """The learner's policy."""
        return self.roles.learner(state.params, state.normalizers)

    def update(self, state: ModelFreeState, samples: tuple[Running, Unroll], key: PRNGKeyArray):
        """Everything that follows `collect`; returns the state and metrics."""
        if self._first is None:
            return self._learn(self._main, state, samples, key)
        stages = (self._first, self._main)
        learn = [functools.partial(self._learn, stage, state, samples, key) for stage in stages]
        names = sorted({name for one in learn for name in jax.eval_shape(one)[1]})

        def alike(one):
            """With the metrics of both stages; those that it has not are NaN."""
            after, metrics = one()
            return after, {name: jnp.asarray(metrics.get(name, jnp.nan), float) for name in names}

        return jax.lax.cond(self._early(state), *(functools.partial(alike, one) for one in learn))

    def _acting(self, state: ModelFreeState) -> tuple[tuple[str, ...], Array]:
        """Roles that may act, and for each environment the index of the one that does."""
        count = self.settings.ppo.environments
        acts = self._main.acts
        roles = ("learner", "imitator") if acts == "halves" else (acts,)
        who = jnp.arange(count) * len(roles) // count
        if self._first is None or acts == "guider":
            return roles, who
        return ("guider", *roles), (1 + who) * (1 - self._early(state))

    def _early(self, state: ModelFreeState) -> Array:
        """Whether the teacher is still being trained."""
        return state.updates < self.settings.teacher.updates

    def _learn(self, stage: Stage, state: ModelFreeState, samples: tuple[Running, Unroll], key: PRNGKeyArray):
        running, unroll = samples
        roles = self.roles
        seen = roles.normalized(state.normalizers, unroll.obs)
        batch, memories = self._batch(stage, state, unroll, seen)

        carry = (state.params, state.optimizer, state.alpha)
        metrics: Metrics = {}
        for i, terms in enumerate(stage.phases):
            carry, log = self._minimise(terms, batch, carry, jax.random.fold_in(key, i))
            metrics |= log
        params, optimizer, alpha = carry
        if roles.method.pull == "backtrack":
            params = roles.backtracked(params)
        if roles.method.pull == "penalty":
            metrics["alpha"] = alpha
        running = dataclasses.replace(running, memories=memories)
        normalizers = self._follow_statistics(stage, state.normalizers, unroll)
        metrics |= {
            "train_return": jnp.nanmean(unroll.returned),
            "diverged_samples": unroll.diverged.sum(),
        }
        return ModelFreeState(params, optimizer, normalizers, running, alpha, state.updates + 1), metrics

    def _minimise(self, terms: Terms, batch: Batch, carry: Any, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        """Epochs of gradient steps on the terms; the carry is parameters, the optimiser's state, and alpha."""
        ppo = self.settings.ppo

        trained = self.roles.trained(terms)

        def loss(own, params, part, alpha):
            return self.objective.total({**params, **own}, part, alpha, terms)

        def step(carry, chosen):
            params, optimizer, alpha = carry
            own, memory = ({name: tree[name] for name in trained} for tree in (params, optimizer))
            gradient, log = jax.grad(loss, has_aux=True)(own, params, _sequences(batch, chosen), alpha)
            steps = {name: self._adam.update(gradient[name], memory[name]) for name in trained}
            changed = {name: optax.apply_updates(own[name], step) for name, (step, _) in steps.items()}
            moved = {name: memory for name, (_, memory) in steps.items()}
            sound = all_finite(gradient, batched=False)
            changed, moved = select(sound, (changed, moved), (own, memory))
            return ({**params, **changed}, {**optimizer, **moved}, alpha), log | {"failed_updates": 1.0 - sound}

        def epoch(carry, key):
            order = jax.random.permutation(key, batch.first.shape[1]).reshape(ppo.minibatches, -1)
            (params, optimizer, alpha), log = jax.lax.scan(step, carry, order)
            if self.roles.method.pull == "penalty":
                alpha = self._adapt(alpha, log["kl_to_learner"].mean())
            return (params, optimizer, alpha), log

        carry, log = jax.lax.scan(epoch, carry, jax.random.split(key, ppo.epochs))
        return carry, {
            name: values.sum() if name == "failed_updates" else values.mean() for name, values in log.items()
        }

    def _batch(self, stage: Stage, state: ModelFreeState, unroll: Unroll, seen) -> tuple[Batch, dict[str, Array]]:
        """Sequences to learn from, with advantages and targets; and the memories at the end of the unroll."""
        roles, ppo, params = self.roles, self.settings.ppo, state.params
        critics = [critic for critic in roles.method.critics if any(critic in terms for terms in stage.phases)]
        everyone = [*roles.method.roles, *roles.method.critics] if self.settings.network.memory else critics
        before = state.running.memories
        found = {name: roles.along(params, name, before[name], seen, unroll.first) for name in everyone}
        after = roles.normalized(state.normalizers, unroll.final)

        def finals(critic: str, needed: Array) -> Array:
            return finals_of(roles, params, critic, found[critic][0], after, needed)

        weights = self._weights(stage, unroll)
        rewards = ppo.reward_scale * unroll.reward
        targets, advantage = {}, jnp.zeros_like(rewards)
        for critic in critics:
            values, paid = found[critic][1], rewards
            if critic == "critic" and roles.method.shaped:
                potential = finals("imitator_critic", jnp.ones_like(unroll.done))
                potential = jnp.where(unroll.done & ~unroll.truncated, 0.0, potential)
                paid = rewards + ppo.discount * potential - found["imitator_critic"][1]
            last = finals(critic, unroll.truncated)
            gained = advantages(paid, values, last, unroll.done, unroll.truncated, ppo.discount, ppo.trace)
            targets[critic] = gained + values
            if critic == stage.critic:
                advantage = _standardized(gained, weights["learner"])
        W, sequences = self.window, unroll.reward.size // self.window
        # a sequence starts with the memory that the last step of the sequence before it left
        held = {name: jnp.zeros((sequences, memory.shape[-1])) for name, memory in before.items()}
        if self.settings.network.memory:
            for name, (hs, _) in found.items():
                starts = jnp.concatenate([before[name][None], hs[W - 1 : -1 : W]])
                held[name] = starts.reshape(sequences, -1)
            before = {name: hs[-1] for name, (hs, _) in found.items()}
        per_step = (seen, unroll.first, unroll.action, unroll.log_prob, weights, advantage, targets)
        seen, first, action, log_prob, weights, advantage, targets = jax.tree.map(lambda x: _windows(x, W), per_step)
        return Batch(seen, first, held, action, log_prob, weights, advantage, targets), before

    def _weights(self, stage: Stage, unroll: Unroll) -> dict[str, Array]:
        """Which steps count for the learner's policy gradient and for each critic: those of its own policy."""
        ones = jnp.ones_like(unroll.reward)
        weights = dict.fromkeys(("learner", *self.roles.method.critics), ones)
        if stage.acts == "halves":
            imitator = (jnp.arange(ones.shape[1]) * 2 // ones.shape[1]) * ones
            weights |= {"learner": 1.0 - imitator, "critic": 1.0 - imitator, "imitator_critic": imitator}
        return weights

    def _follow_statistics(self, stage: Stage, normalizers: dict[str, Any], unroll: Unroll) -> dict[str, Any]:
        """Normalisers that have seen this unroll too; that of a frozen guider stays."""
        if not self.settings.ppo.normalize:
            return normalizers
        ones = jnp.ones(unroll.reward.size)
        state = unroll.obs["state"]
        new = {**normalizers, "learner": normalizers["learner"].update(state.reshape(len(ones), -1), ones)}
        if self.roles.privileged and (self.roles.method.guider != "frozen" or stage is self._first):
            together = self.roles.together(unroll.obs)
            new["guider"] = normalizers["guider"].update(together.reshape(len(ones), -1), ones)
        return new

    def _adapt(self, alpha: Array, distance: Array) -> Array:
        """The weight alpha of GPO-penalty after an epoch with that mean distance."""
        s = self.settings.penalty
        up, down = distance > 1.2 * s.target, distance < s.target / 1.2
        factor = jnp.where(up, jnp.full((), 1.2), jnp.where(down, jnp.full((), 1 / 1.2), jnp.ones(())))
        awake = jnp.where(distance > s.target, jnp.full((), s.start), alpha)
        return jnp.minimum(jnp.where(alpha < 1e-5, awake, factor * alpha), s.largest)


def _windows(x: Array, W: int) -> Array:
    """(L N ...) in sequences of W steps: (W L/W*N ...)."""
    L, N = x.shape[:2]
    return jnp.swapaxes(x.reshape(L // W, W, N, *x.shape[2:]), 0, 1).reshape(W, L // W * N, *x.shape[2:])


def _sequences(batch: Batch, chosen: Array) -> Batch:
    """Some of a batch's sequences."""
    part = jax.tree.map(lambda x: x[:, chosen], dataclasses.replace(batch, memories={}))
    return dataclasses.replace(part, memories=jax.tree.map(lambda x: x[chosen], batch.memories))


def _standardized(values: Array, weights: Array) -> Array:
    """With mean zero and deviation one over the steps that count."""
    total = weights.sum()
    mean = (weights * values).sum() / total
    deviation = jnp.sqrt((weights * (values - mean) ** 2).sum() / total)
    return (values - mean) / (deviation + 1e-8)
