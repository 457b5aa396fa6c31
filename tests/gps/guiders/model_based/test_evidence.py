"""Which samples count, and which local models may change a controller."""

import jax.numpy as jnp
import numpy as np
import pytest

from gps.guiders.model_based.evidence import reproduces, weigh


def evidence(learner, cost, last, modelled, always=False):
    cost, last, modelled, scale = (jnp.asarray([value]) for value in (cost, last, modelled, 10.0))
    return weigh(jnp.asarray([learner]), reproduces(modelled, cost, scale, 0.5), cost, last, always)


@pytest.mark.parametrize(
    ("learner", "cost", "modelled", "always", "counts", "trusted", "took_over"),
    [
        (False, 9.0, 9.0, False, True, True, False),
        (False, 9.0, 15.0, False, True, False, False),  # off by more than half of 10: the controller stays
        (False, 99.0, 99.0, False, True, True, False),  # that it got worse does not matter
        (True, 9.0, 9.0, False, True, True, True),
        (True, 9.0, 15.0, False, False, False, False),
        (True, 20.0, 20.0, False, False, False, False),  # the learner does worse than the last samples
        (True, 20.0, 20.0, True, True, True, True),
        (True, 20.0, 26.0, True, False, False, False),
        (False, 9.0, np.nan, False, True, False, False),
        (True, np.nan, np.nan, True, False, False, False),
    ],
)
def test_every_row_of_the_table(learner, cost, modelled, always, counts, trusted, took_over):
    weighed = evidence(learner, cost, 10.0, modelled, always)
    assert (bool(weighed.counts[0]), bool(weighed.trusted[0])) == (counts, trusted)
    assert bool(weighed.took_over[0]) == took_over
