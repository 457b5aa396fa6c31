"""Tasks whose learner sees through a camera: what it sees, and that all else is the other task's."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gps.experiments.experiment import Experiment
from gps.tasks.check_control import check_control
from gps.tasks.images import with_images
from gps.tasks.mujoco.point_mass import PointMass, PointMassSettings
from gps.tasks.visual import CameraSettings, Visual

NAMES = ("reacher-vision", "arm-reach-vision", "peg-vision")


@functools.cache
def task(name: str, **camera) -> Visual:
    settings = {"height": 24, "width": 32, **camera}
    return Experiment.resolve({"run": {"task": name}, "task": {"camera": settings}}).build_task()


@pytest.mark.parametrize("name", NAMES)
def test_they_are_control_tasks(name):
    assert check_control(task(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_learner_sees_its_joints_and_an_image_in_which_the_context_shows(name):
    seeing = task(name)
    x = seeing.control_state(seeing.initial_state(jax.random.key(0), seeing.train_contexts[0]))
    see = jax.jit(lambda context: seeing.observe(x, context, jnp.zeros(0)))
    one, other = see(seeing.train_contexts[0]), see(seeing.train_contexts[3])
    rest = one.size - np.prod(seeing.image_shape)
    np.testing.assert_allclose(one[:rest], x, atol=1e-6)  # of these tasks nothing but the arm moves by itself
    np.testing.assert_array_equal(one[:rest], other[:rest])
    assert (np.abs(one[rest:] - other[rest:]) > 0.05).sum() >= 2
    assert 0.0 <= one[rest:].min() <= one[rest:].max() <= 1.0


def test_an_episode_shows_what_observe_does_and_is_the_other_tasks_but_for_that():
    seeing = task("reacher-vision")
    whole = with_images(seeing)
    key, action = jax.random.key(1), jnp.array([0.7, -0.4])
    state, other = (jax.jit(one.reset)(key) for one in (whole, seeing.task))
    for _ in range(2):
        x, context = seeing.control_state(state.data["state"]), state.data["context"]
        np.testing.assert_allclose(state.obs["state"], seeing.observe(x, context, jnp.zeros(0)), atol=1e-6)
        np.testing.assert_array_equal(state.obs["privileged_state"], other.obs["privileged_state"])
        np.testing.assert_array_equal(state.reward, other.reward)
        state, other = (jax.jit(one.step)(now, action) for one, now in ((whole, state), (seeing.task, other)))


def test_channels_are_colours_depth_in_shares_of_its_end_or_both():
    shows = {kind: task("peg-vision", channels=kind, far=2.0) for kind in ("rgb", "depth", "rgbd")}
    context = shows["rgb"].train_contexts[1]
    x = shows["rgb"].control_state(shows["rgb"].initial_state(jax.random.key(0), context))
    images = {kind: np.asarray(jax.jit(seeing.image)(x, context)) for kind, seeing in shows.items()}
    np.testing.assert_array_equal(np.concatenate([images["rgb"], images["depth"]], -1), images["rgbd"])
    mocap = shows["depth"].mocap(context), shows["depth"].mocap_turns(context)
    depth = shows["depth"].camera.depth(shows["depth"].qpos(x), mocap)
    np.testing.assert_allclose(images["depth"][..., 0], depth / 2.0, rtol=1e-6)
    assert 0.0 < images["depth"].min() < images["depth"].max() == 1.0


def test_without_joints_there_is_nothing_but_the_image():
    seeing = task("reacher-vision", joints=False)
    assert seeing.frame_size == seeing.observation_size == np.prod(seeing.image_shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"camera": "front"}, r"no camera 'front' \(it has above\)"), ({"joints": ("elbow",)}, "elbow")],
)
def test_what_a_task_does_not_have_is_named(change, message):
    plain = PointMass(PointMassSettings(), "mujoco", "plain")
    parts = {"camera": "above", "settings": CameraSettings(), "joints": (), "found": plain.target, "name": "seen"}
    with pytest.raises((ValueError, KeyError), match=message):
        Visual(plain, **{**parts, **change})


@pytest.mark.parametrize("name", ["reacher-vision", "arm-reach-vision"])
def test_sight_is_where_the_mark_is_in_the_image(name):
    """The red pixels' middle, by the camera's angle of view."""
    seeing = task(name, height=64, width=64, channels="rgb")
    context = seeing.train_contexts[7]
    x = seeing.control_state(seeing.initial_state(jax.random.key(3), context)) + 0.3
    image, sight = jax.jit(lambda: (seeing.image(x, context), seeing.sight(x, context)))()
    rows, columns = np.nonzero((image[..., 0] > 0.2) & (image[..., 1] < 0.2))
    half = np.tan(np.deg2rad(seeing.camera.model.camera(seeing.camera.name).fovy[0]) / 2)
    middle = half * np.array([(2 * columns.mean() + 1) / 64 - 1, 1 - (2 * rows.mean() + 1) / 64])
    np.testing.assert_allclose(middle, sight[:2] / -sight[2], atol=half / 64)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("reacher-vision", {"history": 3}, "reacher-vision must not stack 3 frames with 0 noise inputs"),
        ("reacher-vision", {"angle_noise": 0.1}, "must not stack 1 frames with 2 noise inputs"),
        ("reacher-vision", {"hide_velocity": True}, "task.task.hide_velocity = true is about a learner without"),
        ("peg-vision", {"see_hole": False}, "task.task.see_hole = false is about a learner without a camera"),
        ("peg-vision", {"see_velocity": False}, "task.task.see_velocity = false is about"),
    ],
)
def test_what_a_learner_without_a_camera_sees_can_not_be_set(name, change, message):
    with pytest.raises(ValueError, match=message):
        Experiment.resolve({"run": {"task": name}, "task": {"task": change}}).build_task()
