"""Policies for tests, and what a policy without memory does with many observations at once."""

import dataclasses

import jax

from policies.distributions import Gaussian
from policies.network import Network, NetworkPolicy


def gaussian_policy(key, no, nu, hidden, std=1.0, memory=0):
    """A fresh Gaussian policy with the same standard deviation of all actions."""
    distribution = Gaussian(nu)
    network = Network(tuple(hidden), distribution.outputs, memory, free=distribution.free)
    policy = NetworkPolicy.start(key, network, distribution, no)
    return policy.with_std(std + 0 * policy.params["params"]["free"])


def with_random_weights(policy, scale=0.3):
    """The policy as training might leave it: with biases, and a head that is not close to zero."""
    draw = lambda a: a + scale * jax.random.normal(jax.random.key(a.size), a.shape)  # noqa: E731
    return dataclasses.replace(policy, params=jax.tree.map(draw, policy.params))


def means(policy, o):
    """Mean actions (*b nu) for observations (*b no)."""
    return policy.distribution.action_moments(policy.along(o[..., None, :]))[0][..., 0, :]


def stds(policy, o):
    """Standard deviations (*b nu) for observations (*b no)."""
    return policy.distribution.action_moments(policy.along(o[..., None, :]))[1][..., 0, :]
