"""The supervised step against weighted least squares, and what must not influence it."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracles
from support.policies import gaussian_policy, means, stds

from policies.distributions import TanhGaussian
from policies.network import Network, NetworkPolicy
from policies.regression import Settings, Targets, fit, optimizer

NO, NU = 2, 2
LONG = Settings(updates=1500, learning_rate=1e-2)
SHORT = Settings(updates=40, batch_size=16)


@functools.partial(jax.jit, static_argnames="settings")
def train(policy, targets, key, settings, optimizer_state=None):
    """`fit` to points: episodes of one step each."""
    episodes = jax.tree.map(lambda values: values[:, None], targets)
    state = optimizer(settings).init(policy.params) if optimizer_state is None else optimizer_state
    return fit(policy, state, episodes, key, settings)


def fresh(hidden=(24,), no=NO):
    return gaussian_policy(jax.random.key(7), no, NU, hidden, 0.3)


def conflicting(seed=0, places=5, repeats=6):
    """Observations that occur several times, each time with another target, precision and weight."""
    rng = np.random.default_rng(seed)
    o = np.repeat(rng.normal(size=(places, NO)), repeats, axis=0)
    actions = rng.normal(size=(len(o), NU))
    precisions = np.stack([oracles.random_covariance(rng, NU, 3.0) for _ in o])
    return Targets(*(jnp.asarray(a, jnp.float32) for a in (o, actions, precisions, rng.uniform(0.0, 2.0, len(o)))))


def compromise(targets, places=5):
    """At each place the action that weighted least squares gives: (sum w P)^-1 sum w P u."""
    o, actions, precisions, weights = (np.asarray(a, float) for a in jax.tree.leaves(targets))
    metric = weights[:, None, None] * precisions
    pull = np.einsum("pij,pj->pi", metric, actions)
    groups = np.arange(len(o)).reshape(places, -1)
    return o[groups[:, 0]], np.stack([np.linalg.solve(metric[g].sum(0), pull[g].sum(0)) for g in groups])


def loss_of(targets, errors):
    """Mean of 1/2 w e'Pe, with precisions scaled to a mean weight of one in each direction."""
    _, _, precisions, weights = (np.asarray(a, float) for a in jax.tree.leaves(targets))
    size = NU * np.mean(weights * np.trace(precisions, axis1=1, axis2=2)) ** -1
    return 0.5 * np.mean(weights * np.einsum("pi,pij,pj->p", errors, precisions, errors)) * size


@pytest.mark.parametrize("settings", [LONG, Settings(optimizer="lbfgs", updates=200)], ids=["adam", "lbfgs"])
def test_training_converges_to_weighted_least_squares(settings):
    """A network that can take any value at five places must end at the best compromise at each of them."""
    targets = conflicting()
    trained, _, loss = train(fresh(), targets, jax.random.key(0), settings)
    places, best = compromise(targets)
    np.testing.assert_allclose(means(trained, jnp.asarray(places, jnp.float32)), best, atol=5e-3)
    optimum = loss_of(targets, np.repeat(best, 6, axis=0) - np.asarray(targets.actions))
    np.testing.assert_allclose(loss, optimum, rtol=1e-3)


def linear_targets(count=400, seed=1):
    """A noisy linear law over small observations, where a tanh network is as good as linear."""
    rng = np.random.default_rng(seed)
    o = 0.3 * rng.normal(size=(count, NO))
    actions = o @ np.array([[1.0, -0.5], [0.4, 2.0]]) + 0.1 + 0.05 * rng.normal(size=(count, NU))
    precisions = np.stack([oracles.random_covariance(rng, NU) for _ in o])
    return Targets(*(jnp.asarray(a, jnp.float32) for a in (o, actions, precisions, rng.uniform(0.5, 1.5, count))))


def test_minibatches_reach_the_loss_of_weighted_linear_regression():
    targets = linear_targets()
    o, actions, precisions, weights = (np.asarray(a, float) for a in jax.tree.leaves(targets))
    features = np.concatenate([o, np.ones((len(o), 1))], axis=1)
    metric = weights[:, None, None] * precisions
    normal = np.einsum("pa,pij,pb->iajb", features, metric, features).reshape(6, 6)
    slope = np.linalg.solve(normal, np.einsum("pa,pij,pj->ia", features, metric, actions).ravel()).reshape(NU, 3)
    linear = loss_of(targets, features @ slope.T - actions)
    trained, _, _ = train(fresh((32, 32)), targets, jax.random.key(0), Settings(updates=1000))
    reached = loss_of(targets, np.asarray(means(trained, targets.observations)) - actions)
    assert 0.9 * linear < reached < 1.1 * linear


def test_the_reported_loss_is_the_mean_over_the_last_tenth():
    """Without a step that is worth the name the loss stays what it was: that of the untrained policy."""
    targets, policy = conflicting(), fresh()
    before = loss_of(targets, np.asarray(means(policy, targets.observations)) - np.asarray(targets.actions))
    _, _, loss = train(policy, targets, jax.random.key(0), Settings(updates=20, learning_rate=1e-9))
    np.testing.assert_allclose(loss, before, rtol=1e-5)
    _, _, first = train(policy, targets, jax.random.key(0), Settings(updates=1, learning_rate=0.1))
    np.testing.assert_allclose(first, before, rtol=1e-5)


def test_points_without_weight_have_no_influence():
    targets = conflicting()
    out = np.arange(30) % 3 == 0
    targets = dataclasses.replace(targets, weights=jnp.where(out, 0.0, targets.weights))
    absurd = Targets(
        observations=targets.observations.at[out].set(100.0),
        actions=targets.actions.at[out].set(-1e4),
        precisions=targets.precisions.at[out].multiply(1e6),
        weights=targets.weights,
    )
    ours, theirs = (train(fresh(), t, jax.random.key(0), SHORT) for t in (targets, absurd))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_leaving_points_out_is_the_same_as_giving_them_no_weight():
    """With all points in each batch; the scale of the precisions does not count the ones without weight either."""
    targets = conflicting()
    kept = np.arange(30) % 3 != 0
    unweighted = dataclasses.replace(targets, weights=jnp.where(kept, targets.weights, 0.0))
    settings = Settings(updates=100)
    ours, _, loss = train(fresh(), unweighted, jax.random.key(0), settings)
    theirs, _, without = train(fresh(), jax.tree.map(lambda a: a[kept], targets), jax.random.key(0), settings)
    np.testing.assert_allclose(loss, without, rtol=1e-3)
    np.testing.assert_allclose(means(ours, targets.observations), means(theirs, targets.observations), atol=2e-3)


def test_precision_decides_which_error_is_reduced():
    """One hidden unit cannot follow an even and an odd function at once: it follows the one that counts."""
    x = np.linspace(-1.5, 1.5, 60)
    o, actions = np.stack([x, np.zeros(60)], axis=1), np.stack([np.tanh(3 * x), np.cos(3 * x)], axis=1)
    errors = {}
    for exact in (0, 1):
        precision = np.diag(np.where(np.arange(2) == exact, 100.0, 0.01))
        targets = (o, actions, np.broadcast_to(precision, (60, 2, 2)), np.ones(60))
        targets = Targets(*(jnp.asarray(a, jnp.float32) for a in targets))
        trained, _, _ = train(fresh((1,)), targets, jax.random.key(0), LONG)
        errors[exact] = ((np.asarray(means(trained, targets.observations)) - actions) ** 2).mean(0)
    assert errors[0][0] < 0.2 * errors[1][0]
    assert errors[1][1] < 0.8 * errors[0][1]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_size_of_precisions_and_weights_does_not_matter(scale):
    """Controllers that grow certain do not change the learner's step: only what counts more than what does."""
    targets = conflicting()
    larger = dataclasses.replace(targets, precisions=scale * targets.precisions)
    ours, theirs = (train(fresh(), t, jax.random.key(0), SHORT) for t in (targets, larger))
    np.testing.assert_allclose(ours[2], theirs[2], rtol=1e-4)
    np.testing.assert_allclose(means(ours[0], targets.observations), means(theirs[0], targets.observations), atol=1e-4)


def test_training_is_decided_by_its_key():
    targets = conflicting()
    first, again, other = (train(fresh(), targets, jax.random.key(seed), SHORT) for seed in (0, 0, 1))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(means(first[0], targets.observations) - means(other[0], targets.observations)).max() > 1e-5


def test_a_batch_larger_than_the_data_is_the_data():
    targets = conflicting()
    ours = train(fresh(), targets, jax.random.key(0), Settings(updates=30, batch_size=30))
    larger = train(fresh(), targets, jax.random.key(0), Settings(updates=30, batch_size=4096))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(larger), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_pass_visits_every_point_once():
    """Two batches of 15 are 30 points: with a step too small to matter, the losses of a pass average to the whole."""
    targets, policy = conflicting(), fresh()
    before = loss_of(targets, np.asarray(means(policy, targets.observations)) - np.asarray(targets.actions))
    settings = Settings(updates=20, batch_size=15, learning_rate=1e-9)  # the last tenth is one pass
    for seed in range(3):
        _, _, loss = train(policy, targets, jax.random.key(seed), settings)
        np.testing.assert_allclose(loss, before, rtol=1e-4)


def test_the_normaliser_is_left_alone_and_the_optimiser_remembers():
    targets, policy = conflicting(), fresh()
    policy = policy.renormalized(policy.normalizer.update(targets.observations, jnp.ones(30)))
    trained, memory, _ = train(policy, targets, jax.random.key(0), SHORT)
    for a, b in zip(jax.tree.leaves(trained.normalizer), jax.tree.leaves(policy.normalizer), strict=True):
        np.testing.assert_array_equal(a, b)
    assert SHORT.updates in [int(leaf) for leaf in jax.tree.leaves(memory) if jnp.ndim(leaf) == 0]
    cold = train(trained, targets, jax.random.key(1), SHORT)
    warm = train(trained, targets, jax.random.key(1), SHORT, memory)
    assert np.abs(means(cold[0], targets.observations) - means(warm[0], targets.observations)).max() > 1e-5


def test_the_std_is_the_best_constant_one_and_not_below_its_floor():
    """It minimises the weighted mean of 1/2 s' diag(P) s - sum log s."""
    targets = conflicting()
    _, _, precisions, weights = (np.asarray(a, float) for a in jax.tree.leaves(targets))
    best = np.average(np.diagonal(precisions, axis1=1, axis2=2), axis=0, weights=weights) ** -0.5
    trained, _, _ = train(fresh(), targets, jax.random.key(0), SHORT)
    np.testing.assert_allclose(stds(trained, targets.observations[0]), best, rtol=1e-4)
    certain = dataclasses.replace(targets, precisions=1e8 * targets.precisions)
    trained, _, _ = train(fresh(), certain, jax.random.key(0), SHORT)
    np.testing.assert_allclose(stds(trained, targets.observations[0]), SHORT.std_floor, rtol=1e-5)


def test_a_policy_between_limits_imitates_actions_and_their_spread():
    """Behind a tanh the std depends on the observation and is learned along with the mean."""
    x = np.linspace(-1.0, 1.0, 64)
    o, actions = np.stack([x, x**2], axis=1), np.stack([0.8 * x, np.clip(3.0 * x, -1.0, 1.0)], axis=1)
    spread = np.stack([np.where(x < 0, 0.05, 0.4), np.full(64, 0.2)], axis=1)
    precisions = spread[:, :, None] ** -2.0 * np.eye(2)
    targets = Targets(*(jnp.asarray(a, jnp.float32) for a in (o, actions, precisions, np.ones(64))))
    distribution = TanhGaussian(NU)
    network = Network((32, 32), distribution.outputs)
    policy = NetworkPolicy.start(jax.random.key(0), network, distribution, NO)
    trained, _, _ = train(policy, targets, jax.random.key(1), Settings(updates=3000))
    np.testing.assert_allclose(means(trained, targets.observations)[:, 0], 0.8 * x, atol=0.15)
    inner = np.abs(actions[:, 1]) < 0.8  # elsewhere there is no such action
    np.testing.assert_allclose(means(trained, targets.observations)[inner, 1], actions[inner, 1], atol=0.1)
    std = np.asarray(stds(trained, targets.observations))[:, 0]
    np.testing.assert_allclose(std[:24], 0.05, rtol=0.5)
    np.testing.assert_allclose(std[40:], 0.4, rtol=0.5)


def test_a_policy_with_memory_learns_what_one_observation_does_not_tell():
    """The action wanted at step t is the observation of step t - 1, on whole episodes of other steps' weights."""
    rng = np.random.default_rng(0)
    o = rng.choice([-1.0, 1.0], size=(64, 6, NO))
    wanted = np.concatenate([np.zeros((64, 1, NU)), 0.5 * o[:, :-1, :NU]], axis=1)
    numbers = (o, wanted, np.broadcast_to(np.eye(NU), (64, 6, NU, NU)), np.ones((64, 6)))
    targets = Targets(*(jnp.asarray(a, jnp.float32) for a in numbers))
    settings = Settings(updates=400, learning_rate=1e-2)

    @jax.jit
    def error(policy):
        trained, _, _ = fit(policy, optimizer(settings).init(policy.params), targets, jax.random.key(1), settings)
        mean, _ = trained.distribution.action_moments(trained.along(targets.observations))
        return jnp.sqrt(((mean - targets.actions) ** 2).mean())

    assert error(gaussian_policy(jax.random.key(0), NO, NU, (16,), memory=16)) < 0.03
    assert error(gaussian_policy(jax.random.key(0), NO, NU, (16,))) > 0.4


@pytest.mark.parametrize("double", [False, True])
def test_parameters_keep_their_precision_whatever_that_of_the_targets(double):
    """With float64 on, a float32 policy stays one, and a fresh policy is float64."""
    with jax.enable_x64(True):
        targets = jax.tree.map(lambda a: a.astype(float), conflicting())
        policy = fresh()
        wanted = jnp.float64 if double else jnp.float32
        policy = jax.tree.map(lambda a: a.astype(wanted), policy)
        trained, _, _ = train(policy, targets, jax.random.key(0), Settings(updates=3))
        assert all(leaf.dtype == wanted for leaf in jax.tree.leaves(trained.params))
        assert np.abs(means(trained, targets.observations) - means(policy, targets.observations)).max() > 1e-4


def test_without_any_weight_nothing_breaks_and_nothing_is_learned():
    """Every sample of an iteration may have diverged."""
    targets, policy = dataclasses.replace(conflicting(), weights=jnp.zeros(30)), fresh()
    trained, _, loss = train(policy, targets, jax.random.key(0), SHORT)
    assert loss == 0.0
    for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(policy), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["learning_rate", "updates", "batch_size", "gradient_norm", "std_floor"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_impossible_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        Settings(**{name: value})
