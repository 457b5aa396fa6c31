"""PLATO: a teacher that looks ahead and stays close to the learner, so that it visits what the learner will visit.

An iteration

    collects      episodes of a teacher p, which plans ahead from each state that it comes to (`lookahead`)
    labels        each of their steps by what the teacher alone would have done there, pi*
    teaches pi    by regression on the labels of this and earlier iterations, weighted by the inverse covariance of pi*

where at each step the teacher acts by

    p = argmin KL(p || pi*) + closeness KL(p || pi)

Planning gives pi* as a Gaussian, N(u*, S) with S of the form of Q_uu^-1, so that p is a product of Gaussians. With
closeness 0 the teacher acts alone, and the learner does not know what to do where its own errors lead; with a large one
the learner acts, as in DAgger, and an untrained one falls. There is no local model, and no multiplier: what ties the
two together is where the data come from.

Source:
    Kahn, Zhang, Levine, Abbeel, "PLATO: Policy learning with adaptive trajectory optimization", ICRA 2017. There the
    divergence is added to the cost of the first step and the problem solved again; here the quadratic model of the
    first solution answers for it. The size of S is a setting.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from controllers.types import LinearGaussian
from dynamics.rollout import rollout
from gps.columns import Column, short, span
from gps.errors import UserError
from gps.guiders.guider import Metrics
from gps.guiders.learner import NetworkSettings
from gps.guiders.model_based import priors, samples
from gps.guiders.model_based.lookahead import Lookahead
from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.settings import FOR_PLANS, LocalModelSettings, TaughtLearnerSettings
from gps.guiders.model_based.start import StartSettings, start_controllers
from gps.guiders.model_based.teaching import Learner, Teaching
from gps.settings import check_at_least, check_one_of, check_positive
from gps.tasks import episodes
from gps.tasks.control_task import ControlTask, require_control
from policies import regression
from policies.network import NetworkPolicy


@dataclass(frozen=True)
class LookaheadSettings:
    """How the teacher looks ahead, and how it acts."""

    # Of the plans: "known", "identified" (the known one with parameters that fit the episodes so far), or "neural" (a
    # network that is trained on them; in the first iteration the teacher follows the controllers of `start`).
    model: str = "known"
    identify: tuple[str, ...] = ()  # those parameters; see `LocalModelSettings`
    horizon: int = 0  # actions of a plan; 0 is the task's
    every: int = 5  # actions between two plans; in between it follows the feedback of the last
    # Of iLQR for each plan. After few of them plans differ from state to state, and so do labels: no learner follows.
    iterations: int = 6
    closeness: float = 1.0  # weight of the divergence from the learner, from the second iteration on

    def __post_init__(self):
        check_one_of(self, "model", FOR_PLANS)
        check_at_least(self, 0, "horizon", "closeness")
        check_at_least(self, 1, "every", "iterations")


@dataclass(frozen=True)
class EpisodesSettings:
    """What is collected, and what of it is kept."""

    samples: int = 1  # episodes per condition and iteration
    std: float = 0.1  # mean standard deviation of the teacher's actions
    kept: int = 10  # iterations whose episodes the learner is taught on, the last ones

    def __post_init__(self):
        check_at_least(self, 1, "samples", "kept")
        check_positive(self, "std")


@dataclass(frozen=True)
class ImitatorSettings:
    """The learner's network, and how it is trained in an iteration."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    training: regression.Settings = field(default_factory=lambda: regression.Settings(updates=1000))


@dataclass(frozen=True)
class PlatoSettings:
    """Settings of PLATO; the controllers of `start` are the nominal ones that the first plans begin with.

    Those go on to improve them, so that the nominal ones need not be the best.
    """

    start: StartSettings = field(default_factory=lambda: StartSettings("ilqr", iterations=20))
    sampling: EpisodesSettings = field(default_factory=EpisodesSettings)
    lookahead: LookaheadSettings = field(default_factory=LookaheadSettings)
    learner: ImitatorSettings = field(default_factory=ImitatorSettings)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Labelled:
    """Episodes of the teacher, and what it would have done alone; leading M N."""

    samples: Samples
    labels: Float[Array, "M N T nu"]
    precisions: Float[Array, "M N T nu nu"]
    kl: Float[Array, "M N"]  # nats a step, KL(teacher || learner)
    failed: Int[Array, "M N"]  # plans that were not found


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PlatoState:
    """What one iteration hands to the next."""

    learner: Learner
    nominal: LinearGaussian  # leading M; in absolute coordinates
    kept: Labelled  # of the last iterations, side by side: M P*N episodes, weight 0 where there are none yet
    model: Any  # what the model of the plans has learned
    iteration: Array


class Plato:
    """See `gps.guiders.guider.Guider` and the top of this file.

    Errors:
        UserError for a task whose simulator has no derivatives in the controllers' state, for a plan that looks beyond
        the task's end, and for one that ends before the next.
    """

    name = "plato"
    updates = 1
    fused = False
    columns = (
        Column("cost", "cost", short),
        Column("cost", "min..max", span, whole=True),
        Column("kl_to_learner", "KL", short),
        Column("learner_error", "learner", short),
    )

    def __init__(self, task: ControlTask, settings: PlatoSettings):
        require_control(task, self.name)
        s = settings.lookahead
        horizon = s.horizon or task.horizon
        if horizon > task.horizon:
            raise UserError(
                f"guider.lookahead.horizon = {horizon} looks beyond the end of {task.name}, which has "
                f"{task.horizon} actions: take at most that, or 0 for all of them"
            )
        if s.every > horizon:
            raise UserError(
                f"guider.lookahead.every = {s.every}: a plan of {horizon} actions ends before the next is made; "
                f"take at most {horizon}"
            )
        if s.model == "neural" and settings.start.controller == "ilqr":
            raise UserError(
                "guider.start.controller = 'ilqr' plans on the known model, which guider.lookahead.model = 'neural' "
                "is there to do without: take 'auto', 'pd' or 'demonstration'"
            )
        self.task = task
        self.settings = settings
        learner = settings.learner
        self.teaching = Teaching(task, TaughtLearnerSettings(learner.network, learner.training))
        model = LocalModelSettings(prior=s.model, identify=s.identify)
        try:
            self.model: Any = priors.PRIORS[s.model](task, model)
        except ValueError as error:
            raise UserError(
                f"guider.lookahead.model = {s.model!r}: 'plato' plans on the task's model, and {error}"
            ) from error
        self.lookahead = Lookahead(task, self.model.dynamics, horizon, s.every, s.iterations, settings.sampling.std)
        self.batch = len(task.train_contexts)
        self.steps_per_iteration = self.batch * settings.sampling.samples * task.horizon

    def init(self, key: PRNGKeyArray) -> PlatoState:
        """An untrained learner, and nominal controllers."""
        task, sampling = self.task, self.settings.sampling
        learner, plans = jax.random.split(key)
        nominal = start_controllers(task, self.settings.start, sampling.std, plans)
        M, E, T, nu = len(task.train_contexts), sampling.kept * sampling.samples, task.horizon, task.nu
        zeros = jnp.zeros
        precisions = jnp.broadcast_to(jnp.eye(nu), (M, E, T, nu, nu))
        none = samples.none_yet(task, E)
        kept = Labelled(none, zeros((M, E, T, nu)), precisions, zeros((M, E)), zeros((M, E), jnp.int32))
        return PlatoState(self.teaching.start(learner), nominal, kept, self.model.init(), zeros((), jnp.int32))

    def collect(self, state: PlatoState, key: PRNGKeyArray) -> Labelled:
        """Episodes of the teacher from every training condition."""
        task, N = self.task, self.settings.sampling.samples
        closeness = jnp.where(state.iteration > 0, self.settings.lookahead.closeness, 0.0)

        def one(nominal, context, key):
            return self._episode(nominal, state, closeness, context, key)

        keys = jax.random.split(key, (len(task.train_contexts), N))
        many = jax.vmap(jax.vmap(one, in_axes=(None, None, 0)))(state.nominal, task.train_contexts, keys)
        weights = many.samples.weights
        whole = samples.without_diverged(many, weights)
        return replace(whole, samples=replace(whole.samples, weights=weights))

    def check(self, collected: Labelled) -> None:
        """Raise `DivergedError` where a condition has no sound sample left."""
        samples.check(collected.samples)

    def judge(self, metrics: Metrics) -> None:
        """Raise `DivergedError` where the fit of the learner could not be taken."""
        self.teaching.judge(metrics, 1)

    def update(self, state: PlatoState, collected: Labelled, key: PRNGKeyArray) -> tuple[PlatoState, Metrics]:
        """Teach the learner on these episodes and the earlier ones."""
        N = self.settings.sampling.samples
        kept = jax.tree.map(lambda old, new: jnp.concatenate([old[:, N:], new], axis=1), state.kept, collected)
        learner = self.teaching.normalized(state.learner, collected.samples)
        weights = jnp.broadcast_to(kept.samples.weights[..., None], kept.labels.shape[:-1])
        learner, metrics = self.teaching.imitate(
            learner, kept.samples.observations, kept.labels, kept.precisions, weights, key
        )
        new = collected.samples
        metrics |= {
            "cost": new.cost,
            "controllers_score": samples.score(self.task, new),
            "kl_to_learner": samples.weighted_mean(collected.kl, new.weights),
            "failed_plans": collected.failed.sum(),
            "diverged_samples": (new.weights == 0).sum(),
            "saturated_actions": (jnp.abs(new.us) >= 1.0).mean((1, 2, 3)),
        }
        model = self.model.update(state.model, new)
        # what was taught without a plan is forgotten as soon as there are plans
        kept = replace(kept, samples=replace(kept.samples, weights=kept.samples.weights * self._plans(state)))
        return replace(state, learner=learner, kept=kept, model=model, iteration=state.iteration + 1), metrics

    def policy(self, state: PlatoState) -> NetworkPolicy:
        """The learner's policy."""
        return state.learner.policy

    def _plans(self, state: PlatoState) -> Bool[Array, ""]:
        """Whether the model says anything yet."""
        return (state.iteration > 0) | (self.settings.lookahead.model != "neural")

    def _episode(
        self, nominal: LinearGaussian, state: PlatoState, closeness: Array, context: Array, key: PRNGKeyArray
    ) -> Labelled:
        """One episode of the teacher."""
        task, look, policy, model = self.task, self.lookahead, state.learner.policy, state.model
        usable = self._plans(state)
        T, nu = task.horizon, task.nu
        start, action, frame = jax.random.split(key, 3)
        noise = {
            "action": jax.random.normal(action, (T, nu)),
            "frame": jax.random.normal(frame, (T, task.noise_size)),
        }

        def act(memory, t, state, noise):
            frames, remembered, plan, failed, notes = memory
            x = task.control_state(state)
            frames = episodes.remember(frames, t, task.observe(x, context, noise["frame"]))
            remembered, mean, std = policy.moments(remembered, frames.reshape(-1))
            # t is the same in all episodes, so that this stays a branch in a batch of them
            plan, found = jax.lax.cond(
                t % look.every == 0,
                lambda: look.plan(plan, nominal, x, (context, t, model), usable),
                lambda: (plan, jnp.asarray(True)),
            )
            alone = look.advise(plan, t % look.every, x)
            near = alone.closer_to(mean, std, closeness)
            precision = jax.scipy.linalg.cho_solve((alone.chol, True), jnp.eye(nu))
            noted = (alone.mean, precision, _kl(near.mean, near.chol, mean, std))
            notes = jax.tree.map(lambda rows, row: rows.at[t].set(row), notes, noted)
            memory = frames, remembered, plan, failed + ~found, notes
            return memory, near.mean + near.chol @ noise["action"]

        none = tuple(jnp.zeros((T, *shape)) for shape in ((nu,), (nu, nu), ()))
        frames, remembered = episodes.start_acting(task, policy)
        memory = (frames, remembered, look.begin(nominal), jnp.zeros((), jnp.int32), none)
        trajectory = rollout(task.simulator, act, task.initial_state(start, context), noise, memory)
        *_, failed, (labels, precisions, kl) = trajectory.memory
        episode = samples.recorded(task, trajectory, context, noise["frame"])
        return Labelled(episode, labels, precisions, kl.mean(), failed)


def _kl(mean: Array, chol: Array, other: Array, std: Array) -> Float[Array, ""]:
    """KL(N(mean, chol chol') || N(other, diag std^2)), nats."""
    spread = ((chol / std[:, None]) ** 2).sum() + (((mean - other) / std) ** 2).sum()
    return 0.5 * (spread - len(mean)) + jnp.log(std).sum() - jnp.log(jnp.diagonal(chol)).sum()


def plato(task: ControlTask, settings: PlatoSettings) -> Plato:
    """The guider of that name."""
    return Plato(task, settings)
