"""What policies are paid in training besides the reward of the task: less for being ahead, more for what is new."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_free import CLOCK, L, N, acting, guider_of, kl, programs, thrown, updated, valuing, viewing
from support.toys import Found, advantages_by_sums

from gps.guiders.model_free.rewards import follow_success, paid
from gps.guiders.model_free.settings import SittSettings


@pytest.mark.parametrize("against", ["proxy", "learner"])
def test_a_step_costs_the_divergence_of_its_own_state_by_the_parameters_that_acted(against):
    """r - lambda KL, before any reward scale; what the run reports as the return has none of it."""
    sitt = SittSettings(price=0.7, pull=0.5, paired=0.5, epochs=2, minibatches=1, against=against)
    guider = guider_of("sitt", sitt=sitt, reward_scale=0.5, discount=0.9, trace=0.8)
    states, samples, _ = updated(guider, 3)
    state, unroll = thrown(states[2]), samples[2][1]
    z = acting(guider)(state, unroll.obs)
    divergence = kl(z["guider"], z[against])
    assert divergence.mean() > 0.05
    rewards = np.asarray(unroll.reward) - 0.7 * divergence
    priced, _ = paid(guider.networks, guider.settings, state, unroll)
    np.testing.assert_allclose(priced.reward, rewards, atol=1e-4)
    # and it is what the update learned from
    values, finals = (value["critic"] for value in valuing(guider)(state, unroll))
    ends = [np.asarray(a) for a in (values, finals, unroll.done, unroll.truncated)]
    gained = advantages_by_sums(0.5 * rewards, *ends, 0.9, 0.8)
    _, batch, _ = viewing(guider)(state, priced)
    np.testing.assert_allclose(batch.targets["critic"], (gained + ends[0]).reshape(1, -1), atol=1e-4)
    row = programs(guider)[1](state, samples[2], jax.random.key(6))[1]
    assert float(row["step_kl"]) == pytest.approx(divergence.mean(), rel=1e-3)
    assert float(row["price_of_kl"]) == pytest.approx(0.7 * divergence.sum() / ends[2].sum(), rel=1e-3)
    assert float(row["train_return"]) == pytest.approx(float(jnp.nanmean(unroll.returned)), rel=1e-5)


def test_the_bonus_is_for_what_is_new_until_half_of_the_episodes_succeed():
    guider = guider_of("ppo", Found(name="found"), bonus=0.25)
    states, samples, rows = updated(guider, 3)
    unroll, state = samples[2][1], states[2]
    new = np.asarray(unroll.told["novel"])
    assert 0 < new.mean() < 1
    for success, bonus in ((0.0, 0.25), (0.49, 0.25), (0.5, 0.0), (0.9, 0.0)):
        now = dataclasses.replace(state, success=jnp.asarray(success))
        priced, _ = paid(guider.networks, guider.settings, now, unroll)
        np.testing.assert_allclose(priced.reward, np.asarray(unroll.reward) + bonus * new, atol=1e-6)
    running = 0.0
    for (_, each), row, after in zip(samples, rows, states[1:], strict=True):
        ended = np.asarray(each.done)
        share = (np.asarray(each.told["success"])[ended] == 1).mean()
        assert float(row["train_success"]) == pytest.approx(share)
        running += 0.1 * (share - running)
        assert float(after.success) == pytest.approx(running, rel=1e-5)
    all_fail = dataclasses.replace(unroll, told={"success": jnp.zeros((L, N))})
    assert float(follow_success(jnp.asarray(0.4), all_fail)) == pytest.approx(0.36)
    assert float(follow_success(jnp.asarray(0.6), all_fail)) == pytest.approx(0.6)  # no bonus comes back
    none = dataclasses.replace(unroll, done=jnp.zeros((L, N), bool))
    assert float(follow_success(jnp.asarray(0.4), none)) == pytest.approx(0.4)


def test_a_bonus_for_a_task_that_tells_nothing_new_is_refused():
    with pytest.raises(ValueError, match=r"guider\.ppo\.bonus must be 0 for clock, which does not tell .*, not 0\.1"):
        guider_of("ppo", CLOCK, bonus=0.1)
