"""Every guider by name: one contract, and what is learned."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.guided import MODEL_BASED, MODEL_FREE, arm, build, same, tables

from gps.runs.programs import Programs
from gps.settings import override


def learned(guider, state) -> np.ndarray:
    """What the learner does about a few observations, with the same noise each time."""
    policy, task = guider.policy(state), guider.task
    observations = jax.random.uniform(jax.random.key(3), (64, task.observation_size))
    noises = policy.noise(jax.random.key(4), (64,))
    act = jax.vmap(lambda o, noise: policy.act(policy.start_memory(), o, noise)[1])
    return np.asarray(jax.jit(act)(observations, noises))


@pytest.mark.parametrize(
    ("name", "task"),
    [*((name, "tiger-door") for name in MODEL_FREE), *((name, "reacher") for name in (*MODEL_BASED, "gpo-clip"))],
)
def test_guider_contract(name, task):
    guider = build(arm(name) if task == "reacher" else tables(name))
    programs = Programs(guider)
    state = start = jax.jit(guider.init)(jax.random.key(0))
    rows, states = [], []
    for i in range(3):
        state, metrics = programs.iterate(state, jax.random.key(1 + i))
        rows.append(metrics)
        states.append(state)

    assert guider.name == name
    steps = 2 * 4 * 4 if task == "tiger-door" else 6 * 16 * 12  # updates x environments x unroll
    steps = 3 * 3 * 12 if name in MODEL_BASED else steps  # targets x samples x horizon
    assert guider.steps_per_iteration == steps
    # on the device an iteration is one program, with the C engine two; compiled once
    assert guider.fused == (task == "tiger-door")
    sizes = [program._cache_size() for program in (programs.whole, programs.collect, programs.update)]
    assert sizes == ([1, 0, 0] if guider.fused else [0, 1, 1])
    # what an iteration hands to the next has the shapes and types that it was handed, and is sound
    for first, last in zip(jax.tree.leaves(start), jax.tree.leaves(state), strict=True):
        assert (first.shape, first.dtype) == (last.shape, last.dtype)
        assert np.isfinite(last).all()
    # pure: the same state and key give the same bits, another key others
    assert same(programs.iterate(start, jax.random.key(1))[0], states[0])
    assert not same(programs.iterate(start, jax.random.key(11))[0], states[0])
    # the learner was taught
    assert not np.array_equal(learned(guider, start), learned(guider, state))
    # metrics: flat, a scalar or one number per condition, the same in every iteration
    assert all(jnp.shape(value) in ((), (3,)) for value in rows[-1].values())
    assert list(rows[0]) == list(rows[-1])
    assert {"diverged_samples", "failed_fits" if name in MODEL_BASED else "failed_updates"} <= set(rows[0])


def test_every_guider_teaches_the_same_learner():
    """The same policy down to its parameters, from the same seed and the same settings of the network."""
    guiders = [build(arm(name, "guider.learner.network.hidden=[8, 8]")) for name in (*MODEL_BASED, "gpo-clip", "ppo")]
    first, *others = (guider.policy(jax.jit(guider.init)(jax.random.key(4))) for guider in guiders)
    for other in others:
        assert (other.network, other.distribution) == (first.network, first.distribution)
        assert jax.tree.structure(other.params) == jax.tree.structure(first.params)
        assert same(other.params, first.params)


# what is learned, with the settings that gps train takes on this task


def sampled_return(
    guider: str, iterations: int, environments: int, task: str = "tiger-door-alt", hidden: tuple[int, ...] = (16,)
) -> float:
    """Of drawn actions at the end of a training."""
    run = {"run": {"task": task, "guider": guider}, "guider": {"learner": {"network": {"hidden": list(hidden)}}}}
    built = build(override(run, [f"guider.ppo.environments={environments}", "guider.ppo.updates=20"]))
    programs = Programs(built)
    state = built.init(jax.random.key(1))
    for i in range(iterations):
        state, _ = programs.iterate(state, jax.random.key(100 + i))
    return programs.evaluate(built.policy(state), jax.random.key(5)).scores(built.task)["learner_return_sampled"]


@pytest.mark.parametrize(
    ("guider", "iterations", "environments", "low", "high"),
    [
        ("ppo", 8, 64, 0.93, 1.07),
        ("gpo-naive", 8, 64, 0.93, 1.07),
        ("gpo-penalty", 8, 64, 0.93, 1.07),
        ("gpo-clip", 8, 64, 0.93, 1.07),
        ("gpo-clip-supervised", 16, 128, 0.93, 1.07),  # without a policy gradient of its own
        ("gpo-ablation", 8, 64, 0.93, 1.07),
        ("ppo-bc", 8, 64, 0.6, 0.9),
    ],
)
def test_the_doors_are_learned_and_imitation_of_the_best_guider_is_not_enough(
    guider, iterations, environments, low, high
):
    """4096 episodes: the deviation of their mean is 0.016 at most."""
    assert low <= sampled_return(guider, iterations, environments) <= high


def test_a_teacher_who_is_informed_of_its_student_listens_first():
    """The student's optimum is 0.9, and 0.5 is what it is taught by a teacher who opens the right door at once."""
    assert 0.87 <= sampled_return("sitt", 6, 64, "tiger-door", (64, 64)) <= 0.9 + 1e-6


def test_the_arm_is_learned_through_the_c_engine(quick):
    guider = build(arm("gpo-clip"))
    programs, state = quick(guider), guider.init(jax.random.key(0))

    def scores():
        return programs.evaluate(guider.policy(state), jax.random.key(9)).scores(guider.task)

    before = scores()
    for i in range(4):
        state, _ = programs.iterate(state, jax.random.key(i))
    after = scores()
    assert after["train_cost"] < 0.85 * before["train_cost"]
    assert 0 < after["train_score"] < before["train_score"] < 42  # cm, the arm's two lengths
