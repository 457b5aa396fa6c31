"""The one learner: the same for every guider, and of the distribution that fits its task."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest
from support.toys import Clock

from gps.experiments.experiment import Experiment
from gps.guiders.learner import choose_distribution
from gps.tasks.doors.tiger import TigerDoor, TigerDoorSettings
from policies.distributions import Categorical, Gaussian, TanhGaussian
from policies.network import NetworkPolicy

NETWORKS = {
    "feed-forward": {"hidden": [7, 6], "activation": "silu"},
    "memory": {"hidden": [7], "memory": 5, "activation": "tanh", "distribution": "tanh-gaussian"},
}


@functools.cache
def learner_of(guider: str, network: str, seed: int = 3) -> NetworkPolicy:
    """What a guider's `init` makes of a seed on the reacher; nothing but the network is set."""
    run = {"task": "reacher", "guider": guider, "engine": "mujoco"}
    settings: dict[str, Any] = {"run": run, "guider": {"learner": {"network": NETWORKS[network]}}}
    built = Experiment.resolve(settings).build()
    return built.policy(built.init(jax.random.key(seed)))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("guider", ["mdgps", "gpo-clip", "gpo-penalty", "ppo", "dagger"])
def test_a_learner_starts_alike_whoever_teaches_it(guider, network):
    own, other = learner_of("badmm", network), learner_of(guider, network)
    assert jax.tree.structure(own) == jax.tree.structure(other)  # with the network's form and the distribution
    jax.tree.map(np.testing.assert_array_equal, own, other)


@functools.cache
def seeing(guider: str, **vision) -> Any:
    """A guider of `reacher-vision`, with small images."""
    network = {"hidden": [7], "vision": {"channels": [3], "features": 5, **vision}}
    task = {"camera": {"height": 12, "width": 16}}
    settings: dict[str, Any] = {"task": task, "guider": {"learner": {"network": network}}}
    return Experiment.resolve(
        {"run": {"task": "reacher-vision", "guider": guider, "engine": "mujoco"}, **settings}
    ).build()


@pytest.mark.parametrize("encoder", ["points", "strided"])
def test_a_learner_that_sees_starts_alike_too(encoder):
    own, other = (
        built.policy(built.init(jax.random.key(3)))
        for built in (seeing("badmm", encoder=encoder), seeing("gpo-clip", encoder=encoder))
    )
    jax.tree.map(np.testing.assert_array_equal, own, other)
    assert own.normalizer.mean.shape == (4,)  # of the joints; the image stays as it is


def middle(images):
    """An encoder of one's own: the colour in the middle."""
    return images[:, 6, 8]


def flat(images):
    """No encoder: not a row for each image."""
    return images.reshape(-1)


def test_an_encoder_of_ones_own_is_called_by_name_and_not_trained():
    built = seeing("badmm", encoder=f"{__name__}:middle")
    policy = built.policy(built.init(jax.random.key(0)))
    assert "eyes" not in policy.params["params"]
    assert policy.params["params"]["input"]["kernel"].shape == (4 + 3, 7)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"encoder": "cnn"}, "unknown encoder 'cnn'; known: points, strided"),
        ({"encoder": f"{__name__}:nothing"}, "vision.encoder = .*:nothing': .*it must be 'module:function'"),
        ({"encoder": "no_such_module:f"}, "vision.encoder = 'no_such_module:f': No module named"),
        ({"encoder": f"{__name__}:flat"}, r"must make numbers \(3, n\) of images \(3, 12, 16, 3\)"),
        ({"encoder": ":f"}, "encoder must be one of points, strided, or 'module:function', not ':f'"),
        ({"encoder": "json:loads"}, "vision.encoder = 'json:loads' fails with images"),
        ({"channels": ()}, "channels must name at least one positive number"),
        ({"features": 0}, "features must be at least 1"),
    ],
)
def test_an_encoder_that_can_not_be_is_named(vision, message):
    def build():
        built = seeing("badmm", **vision)
        built.init(jax.random.key(0))

    with pytest.raises(ValueError, match=message):
        build()


def test_another_seed_makes_another_learner_of_the_same_form():
    own, other = learner_of("badmm", "memory"), learner_of("badmm", "memory", seed=4)
    kernels = [layer["kernel"] for layer in (own.params["params"]["input"], other.params["params"]["input"])]
    assert kernels[0].shape == (own.normalizer.mean.size, 7)
    assert (kernels[0] != kernels[1]).all()


def test_the_distribution_is_that_of_the_tasks_actions():
    door, clock = TigerDoor(TigerDoorSettings()), Clock()
    assert choose_distribution("auto", door) == choose_distribution("categorical", door) == Categorical(3)
    assert choose_distribution("auto", clock) == TanhGaussian(2)
    assert choose_distribution("gaussian", clock) == Gaussian(2)
    assert learner_of("ppo", "feed-forward").distribution == Gaussian(2)  # a ControlTask
    with pytest.raises(ValueError, match=r"network.distribution = 'gaussian' does not fit .* 3 choices: take 'categ"):
        choose_distribution("gaussian", door)
    with pytest.raises(ValueError, match=r"'categorical' does not fit clock, whose actions are 2 numbers: take 'gau"):
        choose_distribution("categorical", clock)
