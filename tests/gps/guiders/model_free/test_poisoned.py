"""Observations that are none, and updates that would not be finite: neither stays in a run."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_free import L, guider_of, same, updated
from support.toys import Clock

from gps.guiders.guider import DivergedError, summarize

VALUES = (np.nan, -np.inf, 1e30)


class Poisoned(Clock):
    """A clock of which some episodes begin with an observation that is none."""

    def reset(self, key):
        drawing, rest = jax.random.split(key)
        state = super().reset(rest)
        kind = jax.random.randint(drawing, (), 0, 10)  # the first three are bad
        value = jnp.asarray(VALUES)[jnp.minimum(kind, 2)]
        obs = {**state.obs, "state": jnp.where(kind < 3, value, state.obs["state"])}
        return dataclasses.replace(state, obs=obs)


POISONED = Poisoned(name="poisoned")


def test_a_reset_without_an_observation_enters_no_statistics():
    """Those of both normalisers are numpy's of all the other observations; each bad start is one step that diverged."""
    states, samples, rows = updated(guider_of("gpo-naive", POISONED), 3)
    sound = np.concatenate([np.asarray(unroll.observed).reshape(-1) for _, unroll in samples])
    assert 0.05 < 1 - sound.mean() < 0.6
    seen = np.concatenate([np.asarray(unroll.obs["state"]).reshape(-1, 2) for _, unroll in samples])
    learner = states[-1].normalizers["learner"]
    np.testing.assert_allclose(learner.count, sound.sum())
    np.testing.assert_allclose(learner.mean, seen[sound].mean(0), rtol=1e-5)
    np.testing.assert_allclose(learner.scale, seen[sound].std(0), rtol=1e-4)
    assert not seen[~sound].any()
    for (_, unroll), row in zip(samples, rows, strict=True):
        lost = ~np.asarray(unroll.observed)
        np.testing.assert_array_equal(unroll.diverged, lost)
        assert row["diverged_samples"] == lost.sum()
        assert np.asarray(unroll.done)[lost].all()
        assert not np.asarray(unroll.reward)[lost].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((states[-1].params, states[-1].normalizers)))


def test_where_a_step_first_diverged_is_told():
    guider = guider_of("gpo-naive", POISONED)
    _, samples, rows = updated(guider, 3)
    first = [np.argwhere(np.asarray(unroll.diverged))[0] for _, unroll in samples]
    for i, (row, (step, environment)) in enumerate(zip(rows, first, strict=True)):
        assert (row["first_diverged_environment"], row["first_diverged_step"]) == (environment, i * L + step)
    metrics = summarize(jax.tree.map(lambda *x: jnp.stack(x), *rows))
    assert metrics["first_diverged_step"] == first[0][0]
    with pytest.raises(DivergedError, match=rf"guider.ppo.diverged = 0\.2; first in environment {first[0][1]}, "):
        guider.judge(metrics | {"diverged_samples": 0.21 * guider.steps_per_iteration})
    guider.judge(metrics | {"diverged_samples": 0.19 * guider.steps_per_iteration})
    clean = updated(guider_of("gpo-naive"), 1)[2][0]
    assert np.isnan(clean["first_diverged_step"])


@pytest.mark.filterwarnings("ignore:overflow")
def test_an_update_that_makes_anything_not_finite_is_not_taken():
    guider = guider_of("gpo-naive", learning_rate=1e300)
    states, _, rows = updated(guider, 1)
    assert same(states[-1].params, states[0].params)
    assert rows[0]["failed_updates"] == 2 * 2 * 2  # losses, epochs and minibatches
    with pytest.raises(DivergedError, match=r"16 updates .* were not taken.*lower guider\.ppo\.learning_rate"):
        guider.judge({"diverged_samples": 0.0, "failed_updates": 16.0})
    guider.judge({"diverged_samples": 0.0, "failed_updates": 8.0})
