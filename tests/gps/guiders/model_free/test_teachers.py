"""Privileged teachers: trained first and alone, or adopted from another run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_free import acting, guider_of, programs, same, updated
from support.toys import Clock

from policies.network import HEAD


class Wide(Clock):
    """Its guider sees (length, end) twice."""

    privileged_size = 4

    def _obs(self, data):
        obs = super()._obs(data)
        return {**obs, "privileged_state": jnp.tile(obs["privileged_state"], 2)}


@pytest.mark.parametrize("name", ["dagger", "advisor", "elf"])
def test_a_teacher_is_trained_first_and_alone_and_then_stays_to_the_last_bit(name):
    guider = guider_of(name)
    states, _, rows = updated(guider, 4)
    for before, after in ((0, 1), (1, 2)):
        one, other = states[before], states[after]
        moved = {part for part in one.params if not same(one.params[part], other.params[part])}
        assert moved == {"guider", "teacher_critic"}
        assert not same(one.normalizers["guider"], other.normalizers["guider"])
        assert np.isfinite(rows[before]["guider_entropy"])
    for before, after in ((2, 3), (3, 4)):
        one, other = states[before], states[after]
        moved = {part for part in one.params if not same(one.params[part], other.params[part])}
        assert moved == set(one.params) - {"guider", "teacher_critic"}
        assert same(one.normalizers["guider"], other.normalizers["guider"])
        assert not same(one.normalizers["learner"], other.normalizers["learner"])
        assert np.isnan(rows[before]["guider_entropy"])


def test_a_learner_can_act_by_its_teachers_head():
    guider = guider_of("bc", teacher_head=True)
    states, _, rows = updated(guider, 4)
    before, after = states[2], states[4]
    assert not set(after.params["learner"]["params"]) & set(HEAD)
    assert not same(before.params["learner"], after.params["learner"])
    assert same(guider.policy(after).params["params"]["head"], before.params["guider"]["params"]["head"])
    assert float(rows[3]["kl_to_learner"]) < float(rows[2]["kl_to_learner"])


@pytest.mark.parametrize(("name", "owner"), [("ppo-bc", "policy"), ("dagger", "guider"), ("sitt", "guider")])
def test_an_adopted_teacher_is_the_guider_from_the_first_update_on(name, owner):
    """The teacher of ppo-bc is half of a shared network. Nothing else of the state that adopts it changes."""
    other = guider_of(name)
    trained = updated(other, 3)[0][-1]
    student = guider_of("bc", run="elsewhere")
    fresh = student.init(jax.random.key(3))
    state = student.adopt(fresh, other.teacher(trained))
    assert same(state.params, fresh.params | {"guider": trained.params[owner]})
    assert same(state.normalizers, fresh.normalizers | {"guider": trained.normalizers["guider"]})
    assert same((state.optimizer_state, state.running), (fresh.optimizer_state, fresh.running))
    samples = programs(student)[0](state, jax.random.key(4))
    obs = samples[1].obs
    np.testing.assert_array_equal(acting(student)(state, obs)["guider"], acting(other)(trained, obs)["guider"])
    after, metrics = programs(student)[1](state, samples, jax.random.key(5))
    assert same(after.params["guider"], trained.params[owner])
    assert same(after.normalizers["guider"], trained.normalizers["guider"])
    assert not same(after.params["learner"], fresh.params["learner"])
    assert float(metrics["kl_to_learner"]) > 0


@pytest.mark.parametrize("name", ["ppo", "ppo-asym", "gpo-naive"])
def test_a_run_without_a_privileged_policy_of_its_own_has_no_teacher(name):
    guider = guider_of(name)
    with pytest.raises(ValueError, match=f"{name} keeps no privileged policy: take a run of"):
        guider.teacher(guider.init(jax.random.key(0)))


def test_a_teacher_whose_training_has_not_ended_is_refused():
    guider = guider_of("dagger")
    states = updated(guider, 4)[0]
    with pytest.raises(ValueError, match="its teacher has had 1 of 2 updates"):
        guider.teacher(states[1])
    assert same(guider.teacher(states[2]).params, guider.teacher(states[4]).params)
    # one that was taken from another run is trained
    student = guider_of("bc", run="elsewhere")
    first = student.init(jax.random.key(3))
    assert same(student.teacher(first).params, first.params["guider"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": 3}, r"has another network\.memory: 3, and this run has 0"),
        ({"task": Clock(name="watch")}, "has another task: watch, and this run has clock"),
        ({"task": Wide()}, r"has another size of observations"),
    ],
)
def test_a_teacher_of_another_form_is_refused_in_words(changes, message):
    other = guider_of("ppo-bc", **changes)
    student = guider_of("bc", run="/somewhere/else")
    teacher = other.teacher(other.init(jax.random.key(0)))
    with pytest.raises(ValueError, match=f"its teacher {message}"):
        student.adopt(student.init(jax.random.key(0)), teacher)
