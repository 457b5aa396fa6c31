"""Model-free guidance: a privileged policy improved by PPO, and a learner that imitates it, in one compiled step.

One update collects an unroll of every environment and then minimises the terms of the method's objective for some
epochs; `methods` says which terms, `losses` what they are. The four phases of guided policy search are terms of one
loss here: improve (L1), teach (L2), pull back (L3), and the learner's own gradient (L4). With student-informed teachers
a second loss teaches (`alignment`), and the reward pulls back (`rewards`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from gps.columns import Column, known, short
from gps.guiders.guider import DivergedError, Metrics
from gps.guiders.model_free.batch import make_batch
from gps.guiders.model_free.losses import Objective
from gps.guiders.model_free.methods import METHODS
from gps.guiders.model_free.minimise import Minimiser
from gps.guiders.model_free.networks import GuiderPolicy, Networks
from gps.guiders.model_free.plan import ALIGN, TEACHER_FIRST, Plan, paired_count, plan_of, window_length
from gps.guiders.model_free.rewards import follow_success, paid
from gps.guiders.model_free.settings import SETTINGS
from gps.guiders.model_free.state import SIZES, ModelFreeState, Teacher
from gps.guiders.model_free.unroll import Running, Unroll, collect
from gps.pytrees import bare, keyed
from gps.settings import unknown
from gps.tasks.check import check_environment
from gps.tasks.images import with_images
from gps.tasks.task import Environment
from policies.network import NetworkPolicy
from policies.normalize import LARGEST


class ModelFree:
    """See `gps.guiders.guider.Guider` and the top of this file.

    A guider whose `teacher_run` names a run's folder takes its teacher from there: whoever starts a run calls `adopt`
    on the first state. A state from a checkpoint has the teacher in it.

    Args:
        name: of the method.
        settings: of the type `gps.guiders.model_free.settings.SETTINGS[name]`.
    """

    columns = (
        Column("train_return", "training", short),
        Column("kl_to_learner", "KL", known),
        Column("learner_entropy", "entropy", known),
    )

    def __init__(self, name: str, task: Environment, settings: Any):
        if name not in METHODS:
            raise unknown("model-free guider", name, METHODS)
        if not isinstance(settings, SETTINGS[name]):
            wanted = SETTINGS[name].__name__
            raise ValueError(f"settings of guider {name!r} must be {wanted}, not {type(settings).__name__}")
        check_environment(task)
        method, ppo = METHODS[name], settings.ppo
        if not task.privileged_size and (method.guided or method.critic == "guider"):
            raise ValueError(
                f"guider {name!r} needs a privileged observation, which {task.name} has not: take 'ppo', or give "
                "the task's observations a 'privileged_state'"
            )
        if ppo.bonus and not {"novel", "success"} <= set(jax.eval_shape(task.reset, jax.random.key(0)).metrics):
            raise ValueError(
                f"guider.ppo.bonus must be 0 for {task.name}, which does not tell in its metrics what is 'novel' and "
                f"which episode is a 'success', not {ppo.bonus}"
            )
        if method.collects == "halves" and ppo.environments % 2:
            raise ValueError(
                f"guider.ppo.environments must be even for {name}, whose two policies share them, not "
                f"{ppo.environments}"
            )
        self.name = name
        self.task = task
        self.settings = settings
        self.updates = ppo.updates
        self.fused = not task.calls_host
        self.batch = ppo.environments
        self.steps_per_iteration = ppo.updates * ppo.environments * ppo.unroll
        self.method = method
        self.teacher_run = settings.teacher.run if method.teacher_first else ""
        self.plan = plan_of(method)
        self.trains_teacher = method.teacher_first and not self.teacher_run
        shared = "networks" in method.tables and settings.networks.shared
        table = settings.sitt if method.aligns else settings.teacher if method.teacher_first else None
        one_head = table is not None and table.shared_head
        self.networks = Networks.make(method, shared, task, settings.learner.network, one_head)
        self.window = window_length(settings.learner.network.memory, ppo)
        # environments whose steps the learner sees
        self.paired = paired_count(settings.sitt, ppo, self.window) if method.aligns else ppo.environments
        looks_after = self.networks.critics_look or not self.networks.pixels  # somebody sees the image after a step too
        self.environment = with_images(task) if looks_after else task  # as it is acted in, and
        every = method.aligns and settings.sitt.against == "learner"
        self.shown = 0 if looks_after else ppo.environments if every else self.paired  # environments to look at besides
        self._losses = (*(TEACHER_FIRST.losses * self.trains_teacher), *self.plan.losses)
        self.minimiser = Minimiser(Objective(self.networks, settings))

    def init(self, key: PRNGKeyArray) -> ModelFreeState:
        """Fresh networks, and environments at the start of an episode."""
        learner, rest = jax.random.split(key)
        critics, starting = jax.random.split(rest)
        count = self.settings.ppo.environments
        params = self.networks.start(learner, critics)
        if self.method.backtracks:
            params = self.networks.backtracked(params)
        states = jax.vmap(self.environment.reset)(jax.random.split(starting, count))
        memories = self.networks.start_memories(count)
        return ModelFreeState(
            params=params,
            optimizer_state=self.minimiser.start(params, self._losses),
            normalizers=self.networks.start_normalizers(),
            running=Running(bare(states), jnp.ones(count, bool), jnp.zeros(count), memories),
            alpha=jnp.zeros(()),
            success=jnp.zeros(()),
            updates=jnp.zeros((), jnp.int32),
        )

    def collect(self, state: ModelFreeState, key: PRNGKeyArray) -> tuple[Running, Unroll]:
        """Unroll whoever acts in every environment."""
        ppo = self.settings.ppo
        reset = jax.eval_shape(jax.vmap(self.environment.reset), jax.random.split(jax.random.key(0), ppo.environments))
        running = dataclasses.replace(state.running, states=keyed(state.running.states, reset))
        acting, policy = self._acting(state), (state.params, state.normalizers)
        after, unroll = collect(self.environment, self.networks, acting, policy, running, key, ppo.unroll, self.shown)
        return dataclasses.replace(after, states=bare(after.states), memories=state.running.memories), unroll

    def check(self, samples: tuple[Running, Unroll]) -> None:
        """Nothing to stop for: steps that diverged end their episodes, and `judge` counts them."""

    def judge(self, metrics: Metrics) -> None:
        """Raise `DivergedError` where too many steps of an iteration diverged, or most of its updates failed."""
        ppo, lost, failed = self.settings.ppo, float(metrics["diverged_samples"]), float(metrics["failed_updates"])
        if lost > ppo.diverged * self.steps_per_iteration:
            where = [f"{metrics[f'first_diverged_{name}']:.0f}" for name in ("environment", "step")]
            raise DivergedError(
                f"{100 * lost / self.steps_per_iteration:.0f} % of an iteration's steps diverged (an observation or a "
                f"reward not finite or beyond {LARGEST:.0e}), more than guider.ppo.diverged = {ppo.diverged}; first "
                f"in environment {where[0]}, step {where[1]}"
            )
        tables = [self.minimiser.table(terms) for terms in self.plan.losses]
        if failed > 0.5 * ppo.updates * sum(table.epochs * table.minibatches for table in tables):
            raise DivergedError(
                f"{failed:.0f} updates of an iteration were not taken, as gradients or parameters would not be finite: "
                f"lower guider.ppo.learning_rate, which is {ppo.learning_rate}"
            )

    def policy(self, state: ModelFreeState) -> NetworkPolicy:
        """The learner's policy."""
        return self.networks.learner(state.params, state.normalizers)

    def guiding(self, state: ModelFreeState) -> GuiderPolicy | None:
        """The guider's policy; None where the method has no guider, or one that is the learner after each update."""
        own = self.method.guided and not self.method.backtracks
        return self.networks.guider(state.params, state.normalizers) if own else None

    def update(self, state: ModelFreeState, samples: tuple[Running, Unroll], key: PRNGKeyArray):
        """Everything that follows `collect`; returns the state and metrics."""
        if not self.trains_teacher:
            return self._learn(self.plan, state, samples, key)
        learn = [functools.partial(self._learn, plan, state, samples, key) for plan in (TEACHER_FIRST, self.plan)]
        names = sorted({name for one in learn for name in jax.eval_shape(one)[1]})

        def alike(one):
            """With the metrics of both plans; those that it has not are NaN."""
            after, metrics = one()
            return after, {name: jnp.asarray(metrics.get(name, jnp.nan), float) for name in names}

        return jax.lax.cond(self._early(state), *(functools.partial(alike, one) for one in learn))

    def teacher(self, state: ModelFreeState) -> Teacher:
        """The trained guider, for another run.

        Errors:
            ValueError where this method keeps no privileged policy, or has not trained it to its end.
        """
        if not self.method.guided or self.method.backtracks:
            raise ValueError(
                f"{self.name} keeps no privileged policy: take a run of 'ppo-bc' or of a method that trains its "
                "teacher first"
            )
        if self.trains_teacher and self._early(state):
            raise ValueError(
                f"its teacher has had {int(state.updates)} of {self.settings.teacher.updates} updates: bring that run "
                "to its end first (gps train --resume)"
            )
        return self._as_teacher(state)

    def adopt(self, state: ModelFreeState, teacher: Teacher) -> ModelFreeState:
        """The state with a teacher from another run as its guider.

        Errors:
            ValueError where the teacher is of another form or another task.
        """
        own, other = self._as_teacher(state).form(), teacher.form()
        for what, needed in own.items():
            if needed != other[what]:
                hint = ", which sees no images (train the teacher with guider.networks.shared=false)"
                hint = hint if what == SIZES and self.networks.pixels else ""
                raise ValueError(f"its teacher has another {what}: {other[what]}, and this run has {needed}{hint}")
        params, normalizers = {"guider": teacher.params}, {"guider": teacher.normalizer}
        return dataclasses.replace(state, params=state.params | params, normalizers=state.normalizers | normalizers)

    def _as_teacher(self, state: ModelFreeState) -> Teacher:
        networks = self.networks
        return Teacher(
            params=state.params[networks.owner("guider")],
            normalizer=state.normalizers["guider"],
            task=self.task.name,
            network=self.settings.learner.network,
            sizes=(networks.privileged, networks.observed - networks.pixels),
        )

    def _acting(self, state: ModelFreeState) -> tuple[tuple[str, ...], Array]:
        """Policies that may act, and for each environment the index of the one that does."""
        count = self.settings.ppo.environments
        collects = self.plan.collects
        policies = ("learner", "imitator") if collects == "halves" else (collects,)
        who = jnp.arange(count) * len(policies) // count
        if not self.trains_teacher or collects == "guider":
            return policies, who
        return ("guider", *policies), (1 + who) * (1 - self._early(state))

    def _early(self, state: ModelFreeState) -> Array:
        """Whether the teacher is still being trained."""
        return state.updates < self.settings.teacher.updates

    def _learn(self, plan: Plan, state: ModelFreeState, samples: tuple[Running, Unroll], key: PRNGKeyArray):
        (running, unroll), networks = samples, self.networks
        policy, before = (state.params, state.normalizers), state.running.memories
        priced, told = paid(networks, self.settings, state, unroll)
        batch, memories = make_batch(networks, self.settings, plan, policy, before, priced, self.window)
        metrics: Metrics = {"failed_updates": jnp.zeros(()), **told}
        for terms, order in zip(plan.losses, self._orders(plan, key), strict=True):
            state, log = self.minimiser.run(terms, batch, state, order)
            metrics |= log | {"failed_updates": metrics["failed_updates"] + log["failed_updates"]}
        if self.method.backtracks:
            state = dataclasses.replace(state, params=networks.backtracked(state.params))
        if "penalty" in self.method.tables:
            metrics["alpha"] = state.alpha
        metrics |= {"train_return": jnp.nanmean(unroll.returned), **unroll.losses(state.updates)}
        after = dataclasses.replace(
            state,
            normalizers=self._follow_statistics(plan, state.normalizers, unroll),
            running=dataclasses.replace(running, memories=memories),
            success=follow_success(state.success, unroll),
            updates=state.updates + 1,
        )
        return after, metrics

    def _orders(self, plan: Plan, key: PRNGKeyArray) -> list[Int[Array, "E K S"]]:
        """Which sequences each gradient step takes, for each loss of the plan: K parts of all of them, E times."""
        ppo, aligns = self.settings.ppo, ALIGN in plan.losses
        key, aligning = jax.random.split(key) if aligns else (key, key)
        rows, losses = ppo.unroll // self.window, len(plan.losses) - aligns
        # for all losses by one sort of random numbers
        draws = jax.random.bits(key, (losses, ppo.epochs, rows * ppo.environments))
        orders = jnp.argsort(draws, axis=-1, stable=False).reshape(losses, ppo.epochs, ppo.minibatches, -1)
        if not aligns:
            return list(orders)
        sitt = self.settings.sitt
        paired = (jnp.arange(rows)[:, None] * ppo.environments + jnp.arange(self.paired)).reshape(-1)
        draws = jax.random.bits(aligning, (sitt.epochs, len(paired)))
        return [*orders, paired[jnp.argsort(draws, axis=-1)].reshape(sitt.epochs, sitt.minibatches, -1)]

    def _follow_statistics(self, plan: Plan, normalizers: dict[str, Any], unroll: Unroll) -> dict[str, Any]:
        """Normalisers that have seen this unroll too; that of a frozen guider stays."""
        if not self.settings.ppo.normalize:
            return normalizers
        counts = unroll.observed.astype(float).reshape(-1)
        observed, shown = unroll.obs["state"], jnp.arange(unroll.observed.shape[1]) < self.paired
        learners = (unroll.observed & shown).astype(float).reshape(-1)
        new = {**normalizers, "learner": normalizers["learner"].update(observed.reshape(len(counts), -1), learners)}
        if self.networks.privileged and (not self.method.teacher_first or plan is TEACHER_FIRST):
            everything = self.networks.everything(unroll.obs)
            new["guider"] = normalizers["guider"].update(everything.reshape(len(counts), -1), counts)
        return new
