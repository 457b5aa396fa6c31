"""Student-informed teachers in tables, against optima found by scipy and a switch derived by hand; in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax

from gps.guiders.model_free import tabular

SIZES = (3, 2, 2)  # states, actions, observations


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def worth(pomdp, log_mu, log_pi, price) -> float:
    """E[sum discount^t (r - price KL(mu || pi))], by one linear solve."""
    P, r, emission, start = map(np.asarray, (pomdp.transition, pomdp.reward, pomdp.emission, pomdp.start))
    mu = np.exp(log_mu)
    gained = np.einsum("so,soa,soa->s", emission, mu, r[:, None] - price * (np.asarray(log_mu) - np.asarray(log_pi)))
    onwards = np.einsum("so,soa,sat->st", emission, mu, P)
    return float(start @ np.linalg.solve(np.eye(len(start)) - pomdp.discount * onwards, gained))


def problem(seed):
    pomdp = tabular.random_pomdp(jax.random.key(seed), *SIZES, 0.8)
    return pomdp, jnp.asarray(log_softmax(np.random.default_rng(seed).normal(size=(2, 2)), axis=1))


@pytest.mark.parametrize("price", [0.1, 1.0, 10.0])
def test_the_guider_is_the_best_one_at_its_price(price):
    """BFGS over all guiders finds no better one."""
    for seed in range(2):
        pomdp, log_pi = problem(seed)
        found = tabular.informed_guider(pomdp, log_pi, price)

        def loss(logits, pomdp=pomdp, log_pi=log_pi):
            return -worth(pomdp, log_softmax(logits.reshape(3, 2, 2), axis=2), log_pi, price)

        best = minimize(loss, np.zeros(12), method="BFGS")
        assert worth(pomdp, found, log_pi, price) == pytest.approx(-best.fun, abs=1e-4)
        assert worth(pomdp, found, log_pi, price) >= -best.fun - 1e-12


def test_an_alternation_never_lowers_what_both_are_worth_together():
    alternate = jax.jit(
        lambda pomdp, log_pi, price: (
            tabular.informed_guider(pomdp, log_pi, price),
            tabular.informed(pomdp, log_pi, price),
        )
    )
    for seed in range(5):
        pomdp, log_pi = problem(seed)
        values = []
        for _ in range(12):
            log_mu, after = alternate(pomdp, log_pi, 0.3)
            values += [worth(pomdp, log_mu, log_pi, 0.3), worth(pomdp, log_mu, after, 0.3)]
            log_pi = after
        assert (np.diff(values) > -1e-12).all()
        assert values[-1] > values[0] + 1e-3


@pytest.mark.parametrize("cost", [0.1, 0.25, 0.35])
def test_the_guider_begins_to_listen_at_a_price_that_follows_from_the_cost(cost):
    """One per cent below it the guider ends with opening doors, and its learner with guessing; above it both listen."""
    switch = brentq(lambda price: price * np.log(2 / (1 + np.exp(-1 / price))) - cost, 1e-2, 1e2)
    if cost == 0.1:
        assert switch == pytest.approx(cost / np.log(2), rel=2e-3)
    pomdp = tabular.tiger_door(cost)
    alternate = jax.jit(
        lambda price: jax.lax.fori_loop(
            0, 20_000, lambda _, log_pi: tabular.informed(pomdp, log_pi, price), tabular.uniform(pomdp)
        )
    )
    for price, listens in ((0.99 * switch, False), (1.01 * switch, True)):
        log_pi = alternate(price)
        log_mu = tabular.informed_guider(pomdp, log_pi, price)
        chance = np.exp(log_mu[:2, 0, 2])
        assert ((chance > 0.999) if listens else (chance < 0.001)).all()
        value = float(tabular.evaluate(pomdp, tabular.lift(pomdp, log_pi)).value)
        assert value == pytest.approx(1 - cost if listens else 0.5, abs=2e-3)
