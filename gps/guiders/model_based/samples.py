"""What model-based guiders collect, and the local models that they make of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from controllers import expand
from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost
from dynamics.regression import fit_dynamics, pooled_prior, transitions
from dynamics.rollout import exploration_noise, rollout
from gps.guiders.guider import DivergedError
from gps.tasks import episodes
from gps.tasks.control_task import ControlTask, episode_cost
from policies.mlp import GaussianPolicy


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Samples:
    """M conditions x N samples. A sample that diverged has weight 0 and holds a sound one's numbers instead."""

    xs: Float[Array, "M N T+1 nx"]
    us: Float[Array, "M N T nu"]
    observations: Float[Array, "M N T no"]  # what the learner saw, or would have seen
    costs: Float[Array, "M N"]  # of the episode, in task units
    weights: Float[Array, "M N"]  # 1, or 0 where the simulation diverged


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LocalModel:
    """Everything local about one condition, in deviations from its mean trajectory (xs, us)."""

    xs: Float[Array, "T+1 nx"]
    us: Float[Array, "T nu"]
    initial: Gaussian
    dynamics: LinearDynamics
    cost: QuadraticCost


def none_yet(task: ControlTask, samples: int) -> Samples:
    """What stands for the last samples before there are any: zeros with weight 0."""
    M, T = len(task.train_contexts), task.horizon
    zeros = jnp.zeros((M, samples))
    return Samples(
        xs=jnp.zeros((M, samples, T + 1, task.nx)),
        us=jnp.zeros((M, samples, T, task.nu)),
        observations=jnp.zeros((M, samples, T, task.history * task.frame_size)),
        costs=zeros,
        weights=zeros,
    )


def collect(
    task: ControlTask,
    controllers: LinearGaussian,
    policy: GaussianPolicy,
    by_learner: Bool[Array, " M"],
    key: PRNGKeyArray,
    samples: int,
    smoothing: float,
) -> Samples:
    """Roll out every condition `samples` times, under its controller or, where `by_learner`, under the learner.

    The learner's frames are drawn with their noise in both cases: what it sees is what it is taught on.
    """

    def one(controller, by_learner, context, key):
        start, action, frame = jax.random.split(key, 3)
        noise = {
            "action": exploration_noise(action, task.horizon, task.nu, smoothing),
            "frame": jax.random.normal(frame, (task.horizon, task.noise_size)),
        }
        watch = episodes.act(task, policy, context)

        def act(memory, t, state, noise):
            imitated: Array
            memory, imitated = watch(memory, t, state, noise)
            guided: Array = controller.sample(t, task.control_state(state), noise["action"])
            return memory, jnp.where(by_learner, imitated, guided)

        memory = episodes.start_acting(task, policy)
        trajectory = rollout(task.simulator, act, task.initial_state(start, context), noise, memory)
        xs = jax.vmap(task.control_state)(trajectory.states)
        seen = jax.vmap(task.observe, in_axes=(0, None, 0))(xs[:-1], context, noise["frame"])
        observations = episodes.stack_frames(seen, task.history)
        return (
            xs,
            trajectory.actions,
            observations,
            episode_cost(task, xs, trajectory.actions, context),
            trajectory.sound,
        )

    contexts = task.train_contexts
    keys = jax.random.split(key, (len(contexts), samples))
    many = jax.vmap(jax.vmap(one, in_axes=(None, None, None, 0)))
    xs, us, observations, costs, sound = many(controllers, by_learner, contexts, keys)
    sound = sound & jnp.isfinite(costs) & jnp.isfinite(observations).all((-1, -2))
    return _drop_diverged(Samples(xs, us, observations, costs, sound.astype(xs.dtype)))


def _drop_diverged(samples: Samples) -> Samples:
    stand_in = jnp.argmax(samples.weights, axis=1)  # the first sound sample of each condition
    index = jnp.where(samples.weights > 0, jnp.arange(samples.weights.shape[1]), stand_in[:, None])

    def choose(values: Array) -> Array:
        chosen: Array = jax.vmap(lambda v, i: v[i])(values, index)
        return jnp.where(jnp.isfinite(chosen), chosen, 0.0)  # a condition without a sound sample

    return Samples(
        choose(samples.xs), choose(samples.us), choose(samples.observations), choose(samples.costs), samples.weights
    )


def check(samples: Samples) -> None:
    """Raise `DivergedError` if all samples of some condition diverged."""
    lost = [i for i, sound in enumerate(np.asarray(samples.weights).sum(axis=1)) if sound == 0]
    if lost:
        raise DivergedError(
            f"all {samples.weights.shape[1]} samples of condition(s) {lost} diverged (a state was not finite or "
            "beyond 1e6): lower the exploration (guider.start_std), the step (guider.kl_step) or the physics timestep"
        )


def score(task: ControlTask, samples: Samples) -> Float[Array, " M"]:
    """The task's measure of the samples, on average for each condition."""
    scores = jax.vmap(jax.vmap(task.measure, in_axes=(0, 0, None)))(samples.xs, samples.us, task.train_contexts)
    return weighted_mean(scores, samples.weights)


def weighted_mean(values: Float[Array, "M N"], weights: Float[Array, "M N"]) -> Float[Array, " M"]:
    """Mean over the samples that count."""
    return (values * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)


def fit_local_models(
    task: ControlTask, samples: Samples, prior_strength: float, regularization: float, hessian: str
) -> LocalModel:
    """Fit dynamics and expand the cost around each condition's mean trajectory; fields get a leading M."""
    share = samples.weights / jnp.maximum(samples.weights.sum(1, keepdims=True), 1.0)
    centre_x = jnp.einsum("mn,mntx->mtx", share, samples.xs)
    centre_u = jnp.einsum("mn,mntu->mtu", share, samples.us)
    dx, du = samples.xs - centre_x[:, None], samples.us - centre_u[:, None]

    w = transitions(dx, du)
    weights = jnp.broadcast_to(samples.weights[..., None], w.shape[:-1])
    prior = pooled_prior(w.reshape(-1, w.shape[-1]), weights.reshape(-1), prior_strength)

    def one(dx, du, centre_x, centre_u, weights, share, context):
        dynamics = fit_dynamics(dx, du, weights, prior, regularization)
        spread = jnp.einsum("n,nx,ny->xy", share, dx[:, 0], dx[:, 0])
        initial = Gaussian(jnp.zeros(task.nx), spread + 1e-8 * jnp.eye(task.nx))

        def expand_at(dx, du):
            cost = expand.quadratize(
                lambda x, u, t: task.cost(x, u, t, context),
                lambda x: task.final_cost(x, context),
                centre_x + dx,
                centre_u + du,
                "exact",
            )
            return expand.recentre(cost, -dx, -du)

        costs = jax.vmap(expand_at)(dx, du)
        cost = jax.tree.map(lambda values: jnp.tensordot(share, values, axes=1), costs)
        # the mean is treated, not every sample's Hessian: it needs less treatment, and eigenvectors are dear
        treated = {"H": expand.treat(cost.H, hessian), "H_final": expand.treat(cost.H_final, hessian)}
        cost = dataclasses.replace(cost, **treated)
        return LocalModel(centre_x, centre_u, initial, dynamics, cost)

    return jax.vmap(one)(dx, du, centre_x, centre_u, samples.weights, share, task.train_contexts)
