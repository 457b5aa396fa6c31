"""Encoders against other ways to their numbers, and networks that see with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policies.network import Network
from policies.normalize import Normalizer
from policies.vision import Convolution, Eyes, Frozen, Points, Strided

SHAPE = (9, 12, 2)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(0), (3, *SHAPE))


@pytest.mark.parametrize(("size", "stride"), [(5, 2), (3, 1), (3, 2), (1, 3)])
def test_a_convolution_is_that_of_the_library(images, size, stride):
    layer = Convolution(4, size, stride)
    params = layer.init(jax.random.key(1), images)
    dense = params["params"]["Dense_0"]
    kernel = dense["kernel"].reshape(size, size, SHAPE[-1], 4)
    layout = ("NHWC", "HWIO", "NHWC")
    wanted = jax.lax.conv_general_dilated(images, kernel, (stride, stride), "SAME", dimension_numbers=layout)
    np.testing.assert_allclose(layer.apply(params, images), jax.nn.relu(wanted + dense["bias"]), atol=1e-5)


def test_points_are_where_the_brightest_features_are():
    """A channel that copies the image says where its one bright pixel is, wherever that is."""
    encoder = Points((1,))
    image = jnp.zeros((1, 20, 20, 1))
    params = encoder.init(jax.random.key(0), image)
    kernel = jnp.zeros((25, 1)).at[12].set(1.0)  # the middle of each patch
    layers = {**params["params"], "convolution_0": {"Dense_0": {"kernel": kernel, "bias": jnp.zeros(1)}}}
    params = {"params": {**layers, "temperature": jnp.full(1, 200.0)}}
    for row, column in ((1, 1), (19, 5), (7, 13)):  # in the middle of patches, of which there are 10 x 10
        x, y = np.asarray(encoder.apply(params, image.at[0, row, column, 0].set(1.0)))[0]
        np.testing.assert_allclose([x, y], [(column - 1) / 9 - 1, (row - 1) / 9 - 1], atol=1e-3)


def test_strided_convolutions_halve_the_image_each_time(images):
    params = Strided((3, 4), 5).init(jax.random.key(1), images)
    layers = params["params"]
    assert layers["convolution_1"]["Dense_0"]["kernel"].shape == (27, 4)
    assert layers["dense"]["kernel"].shape == (3 * 3 * 4, 5)


def test_only_other_inputs_are_normalised_and_the_rest_is_the_image(images):
    """[other inputs, image] -> the dense layers see [other inputs, features], features of the image as it is."""
    network = Network((6,), 2, eyes=Eyes(SHAPE, Frozen(lambda images: images.mean((1, 2)))))
    flat = images.reshape(3, -1)
    x = jnp.concatenate([jnp.array([[1.0, 5.0], [3.0, 5.5], [2.0, 7.0]]), flat], axis=1)
    normalizer = network.start_normalizer(x.shape[1]).update(x, jnp.ones(3))
    seen = normalizer(x)
    np.testing.assert_allclose(seen[:, :2], Normalizer.start(2).update(x[:, :2], jnp.ones(3))(x[:, :2]), rtol=1e-6)
    np.testing.assert_array_equal(seen[:, 2:], flat)
    params = network.start(jax.random.key(2), x.shape[1])
    _, z = network.run(params, jnp.zeros((3, 0)), seen[None], jnp.zeros((1, 3), bool))
    blind = Network((6,), 2)
    inputs = jnp.concatenate([seen[:, :2], images.mean((1, 2))], axis=1)
    _, wanted = blind.run(params, jnp.zeros((3, 0)), inputs[None], jnp.zeros((1, 3), bool))
    np.testing.assert_allclose(z, wanted, rtol=1e-6)


def test_a_change_of_statistics_changes_nothing_that_a_seeing_network_does(images):
    network = Network((6,), 2, eyes=Eyes(SHAPE, Points((3,))))
    x = jnp.concatenate([5.0 + jax.random.normal(jax.random.key(3), (3, 2)), images.reshape(3, -1)], axis=1)
    params = network.start(jax.random.key(4), x.shape[1])
    old = network.start_normalizer(x.shape[1])
    new = old.update(x, jnp.ones(3))
    answers = [
        network.run(own, jnp.zeros((3, 0)), normalizer(x)[None], jnp.zeros((1, 3), bool))[1]
        for own, normalizer in ((params, old), (network.rescaled(params, old, new), new))
    ]
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-6)


def test_nothing_trains_a_frozen_encoder(images):
    encoder = Eyes(SHAPE, Frozen(lambda images: (images**2).mean((1, 2))))
    x = jnp.concatenate([jnp.ones((3, 1)), images.reshape(3, -1)], axis=1)
    slope = jax.grad(lambda x: encoder.apply({}, x).sum())(x)
    np.testing.assert_array_equal(slope, jnp.zeros_like(x).at[:, 0].set(1.0))
    assert encoder.init(jax.random.key(0), x) == {}
