"""How penalty weights move."""

import jax.numpy as jnp
import numpy as np
import pytest

from gps.guiders.model_based.penalty import PenaltySettings, adapt_penalty


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("ratio", [0.2 * 0.5, 0.2 * np.sqrt(0.9), 0.2, 0.2 * np.sqrt(1.6), 0.2 * 2.0]),
        # mean 0.132, deviation 0.128: doubled from 0.196 on, halved up to 0.004
        ("spread", [0.1, 0.2, 0.2, 0.2, 0.4]),
        ("fixed", [0.2] * 5),
    ],
)
def test_rules(rule, expected):
    settings = PenaltySettings(rule=rule, target=0.1, largest=0.41)
    kl = jnp.asarray([0.001, 0.09, 0.1, 0.16, 50.0 if rule == "ratio" else 0.31])
    np.testing.assert_allclose(adapt_penalty(jnp.full(5, 0.2), kl, settings), expected, rtol=1e-5)
    huge = adapt_penalty(jnp.full(5, 0.4), jnp.full(5, jnp.inf), settings)
    assert (huge <= 0.41).all()


def test_the_spread_rule_includes_its_bounds():
    """Five equal weights and KLs: deviation zero, so that each KL is at the upper bound, as in the public code."""
    settings = PenaltySettings(rule="spread")
    np.testing.assert_allclose(adapt_penalty(jnp.full(5, 0.2), jnp.full(5, 0.5), settings), 0.4, rtol=1e-6)
