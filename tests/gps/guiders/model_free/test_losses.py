"""The terms of the losses on small arrays, against formulas in numpy and against gradients that must be zero."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from support.toys import Clock

from gps.guiders.learner import NetworkSettings
from gps.guiders.model_free.batch import Batch
from gps.guiders.model_free.losses import Objective
from gps.guiders.model_free.methods import METHODS
from gps.guiders.model_free.minimise import adapted
from gps.guiders.model_free.networks import Networks
from gps.guiders.model_free.settings import (
    SETTINGS,
    AdviceSettings,
    FollowSettings,
    ImitationSettings,
    PenaltySettings,
    PpoSettings,
    RegionSettings,
)
from gps.tasks.doors.tiger import TigerDoor, TigerDoorSettings

DOOR = TigerDoor(TigerDoorSettings())
W, S = 2, 3  # steps and sequences


def objective(name: str, task=DOOR, distribution: str = "auto", **changes) -> Objective:
    """Of the method of that name, guider and learner apart, with changes of its settings."""
    settings = dataclasses.replace(SETTINGS[name](), **changes)
    network = NetworkSettings(hidden=(4,), distribution=distribution)
    return Objective(Networks.make(METHODS[name], False, task, network), settings)


def batch_of(actions, log_prob, advantage, **rest) -> Batch:
    """Arrays (W S); the rest is as a test needs it."""
    ones = jnp.ones(np.shape(advantage))
    given = {"seen": {}, "first": ones > 2, "memories": {}, "weights": {"learner": ones}, "targets": {}, **rest}
    return Batch(action=jnp.asarray(actions), log_prob=jnp.asarray(log_prob), advantage=jnp.asarray(advantage), **given)


def chances(seed: int) -> np.ndarray:
    """Logits (W S 3)."""
    return np.random.default_rng(seed).normal(size=(W, S, 3)).astype(np.float32)


def chosen(z: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Log probabilities of the actions."""
    return np.take_along_axis(special.log_softmax(z.astype(float), -1), actions[..., None], -1)[..., 0]


ACTIONS = np.random.default_rng(0).integers(0, 3, (W, S)).astype(np.int32)
ADVANTAGE = np.random.default_rng(1).normal(size=(W, S)).astype(np.float32)
Z = {"guider": chances(2), "learner": chances(3), "imitator": chances(4)}
BATCH = batch_of(ACTIONS, chosen(chances(5), ACTIONS).astype(np.float32), ADVANTAGE)


@pytest.mark.parametrize("weights", [np.ones((W, S)), np.array([[1, 0, 1], [0, 1, 0]])], ids=["all", "half"])
def test_follow_is_clipped_ppo_with_an_entropy_bonus(weights):
    batch = dataclasses.replace(BATCH, weights={"learner": jnp.asarray(weights, jnp.float32)})
    loss, log = objective("ppo").follow(jax.tree.map(jnp.asarray, Z), batch)
    ratio = np.exp(chosen(Z["learner"], ACTIONS) - np.asarray(BATCH.log_prob))
    surrogate = np.minimum(ratio * ADVANTAGE, ratio.clip(0.8, 1.2) * ADVANTAGE)
    entropy = stats.entropy(special.softmax(Z["learner"].astype(float), -1), axis=-1)
    mean = lambda x: (x * weights).sum() / weights.sum()  # noqa: E731
    assert float(loss) == pytest.approx(-mean(surrogate) - 0.01 * mean(entropy), rel=1e-4)
    assert float(log["entropy"]) == pytest.approx(mean(entropy), rel=1e-4)
    assert float(log["clipped"]) == pytest.approx(mean(np.abs(ratio - 1) > 0.2), rel=1e-6)


def test_the_entropy_bonus_has_a_gradient():
    """Where no advantage pulls, guider and learner move towards more entropy, by the weight of it."""
    still = dataclasses.replace(BATCH, advantage=jnp.zeros((W, S)))
    terms = objective("gpo-penalty")
    logits = jnp.asarray(Z["learner"])

    def plain(z):
        log_p = jax.nn.log_softmax(z)
        return 0.01 * (jnp.exp(log_p) * log_p).sum(-1).mean()

    expected = jax.grad(plain)(logits)
    assert float(jnp.abs(expected).max()) > 1e-4
    follow = jax.grad(lambda z: terms.follow({"learner": z}, still)[0])(logits)
    improve = jax.grad(lambda z: terms.improve({"guider": z}, still)[0])(logits)
    np.testing.assert_allclose(follow, expected, atol=1e-7)
    np.testing.assert_allclose(improve, expected, atol=1e-7)


# mu, pi and beta give the taken action these probabilities; what the surrogate is worth, and whether mu feels it
DELTA = [  # region 0.9 to 1.1, clip 0.2
    (0.50, 0.5, 0.50, 1.0, 1.00, True),
    (0.53, 0.5, 0.50, 1.0, 1.06, True),
    (0.57, 0.5, 0.50, 1.0, 1.10, False),  # above the region
    (0.57, 0.5, 0.50, -1.0, -1.14, True),
    (0.43, 0.5, 0.50, 1.0, 0.86, True),  # below it
    (0.43, 0.5, 0.50, -1.0, -0.90, False),
    (0.50, 0.5, 0.40, 1.0, 1.20, False),  # in the region, but too far from the policy that acted
    (0.50, 0.5, 0.40, -1.0, -1.25, True),
    (0.50, 0.5, 0.80, -1.0, -0.80, False),
    (0.50, 0.6, 0.50, 1.0, 1.00, True),  # where it acted, but below the region: 0.9 x 1.2
    (0.50, 0.6, 0.50, -1.0, -1.08, False),
    (0.60, 0.5, 0.60, 1.0, 11 / 12, False),  # where it acted, but above the region: 1.1 x 5 / 6
    (0.60, 0.5, 0.60, -1.0, -1.00, True),
]
RATIO = [  # region 2 / 3 to 3 / 2, clip 0.9
    (0.60, 0.5, 0.50, 2.0, 2.40, True),
    (0.70, 0.4, 0.50, 2.0, 2.40, False),  # 1.5 x 0.8
    (0.70, 0.4, 0.50, -2.0, -2.80, True),
    (0.30, 0.6, 0.50, 2.0, 1.20, True),
    (0.30, 0.6, 0.50, -2.0, -1.60, False),  # 2 / 3 x 1.2
]


def two_choices(logit):
    """Logits (1 1 3) of which the third choice is never taken."""
    return jnp.stack([logit, 0.0, -40.0])[None, None]


@pytest.mark.parametrize(
    ("region", "clip", "cases"),
    [(RegionSettings("delta", 0.1), 0.2, DELTA), (RegionSettings("ratio", 1.5), 0.9, RATIO)],
    ids=["delta", "ratio"],
)
def test_the_guider_is_clipped_to_the_learner_and_to_the_policy_that_acted(region, clip, cases):
    terms = objective("gpo-clip", region=region, ppo=PpoSettings(clip=clip, entropy=0.0))
    for mu, pi, beta, advantage, worth, felt in cases:
        batch = batch_of(np.zeros((1, 1), np.int32), np.full((1, 1), np.log(beta), np.float32), [[advantage]])

        def loss(mine, learners, batch=batch):
            z = {"guider": two_choices(mine), "learner": two_choices(learners)}
            return terms.improve(z, batch)[0]

        value, (mine, learners) = jax.value_and_grad(loss, argnums=(0, 1))(special.logit(mu), special.logit(pi))
        assert float(value) == pytest.approx(-worth, rel=1e-4)
        slope = -advantage * mu * (1 - mu) / beta if felt else 0.0
        assert float(mine) == pytest.approx(slope, rel=1e-3, abs=1e-6)
        assert float(learners) == 0.0


def test_pulling_back_is_for_steps_outside_the_region_and_for_all_of_a_penalty():
    z = jax.tree.map(jnp.asarray, Z)
    p, q = (special.softmax(Z[role].astype(float), -1) for role in ("guider", "learner"))
    kl = stats.entropy(p, q, axis=-1)
    ratio = np.exp(chosen(Z["guider"], ACTIONS) - chosen(Z["learner"], ACTIONS))
    outside = (ratio < 1 / 1.5) | (ratio > 1.5)
    assert 0 < outside.sum() < outside.size
    clipping = objective("gpo-clip", region=RegionSettings("ratio", 1.5))
    assert float(clipping.pull_back(z, BATCH)) == pytest.approx((kl * outside).sum() / outside.size, rel=1e-4)
    assert float(objective("gpo-penalty").pull_back(z, BATCH)) == pytest.approx(kl.mean(), rel=1e-4)
    gradient = jax.grad(lambda z: clipping.pull_back(z, BATCH))(z)
    np.testing.assert_array_equal(np.asarray(gradient["guider"]).any(-1), outside)
    assert not gradient["learner"].any()


def test_teaching_moves_the_learner_alone():
    z = jax.tree.map(jnp.asarray, Z)
    kl = stats.entropy(*(special.softmax(Z[role].astype(float), -1) for role in ("guider", "learner")), axis=-1)
    value, gradient = jax.value_and_grad(lambda z: objective("ppo-bc").teach(z, "learner"))(z)
    assert float(value) == pytest.approx(kl.mean(), rel=1e-4)
    assert not gradient["guider"].any()
    # the gradient of KL(p, softmax(z)) is softmax(z) - p
    difference = special.softmax(Z["learner"], -1) - special.softmax(Z["guider"], -1)
    np.testing.assert_allclose(gradient["learner"], difference / (W * S), atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kl", ["forward", "reverse"])
def test_the_distance_has_a_direction_and_a_reduction(kl, reduction):
    terms = objective("ppo-bc", Clock(), "gaussian", imitation=ImitationSettings(kl=kl, reduction=reduction))
    guider, learner = np.array([0.3, -1.0, 0.2, -0.5]), np.array([0.0, 0.5, -0.4, 0.1])  # means and log deviations
    (m, n), (s, r) = (guider[:2], learner[:2]), (np.exp(guider[2:]), np.exp(learner[2:]))
    if kl == "reverse":
        m, n, s, r = n, m, r, s
    each = np.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5
    distance = terms.distance(jnp.asarray(guider), jnp.asarray(learner))
    assert float(distance) == pytest.approx(each.mean() if reduction == "mean" else each.sum(), rel=1e-5)


def test_a_log_ratio_is_cut_at_ten():
    far = batch_of(np.zeros((1, 1), np.int32), np.full((1, 1), -40.0, np.float32), [[-1.0]])
    for name in ("follow", "improve"):
        terms = objective("gpo-penalty", ppo=PpoSettings(entropy=0.0))
        z = {"learner": jnp.zeros((1, 1, 3)), "guider": jnp.zeros((1, 1, 3))}
        value = terms.follow(z, far)[0] if name == "follow" else terms.improve(z, far)[0]
        assert float(value) == pytest.approx(math.exp(10.0), rel=1e-5)


# all terms together, through networks


def seen_batch(networks: Networks, seed: int = 7, weights=None) -> Batch:
    """Random observations, actions and numbers for every critic."""
    generator = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(generator.normal(size=shape), jnp.float32)  # noqa: E731
    critics, ones = networks.method.critics, jnp.ones((W, S))
    return batch_of(
        ACTIONS,
        draw(W, S) * 0.1 - 1.0,
        ADVANTAGE,
        seen={"learner": draw(W, S, 3), "guider": draw(W, S, 5)},
        memories=networks.start_memories(S),
        weights=dict.fromkeys(("learner", *critics), ones) | (weights or {}),
        targets={critic: draw(W, S) for critic in critics},
    )


def bent(params):
    """Parameters that are not those of a start."""
    generator = np.random.default_rng(8)
    return jax.tree.map(lambda p: p + jnp.asarray(0.5 * generator.normal(size=p.shape), jnp.float32), params)


def outputs_of(networks: Networks, params, batch: Batch) -> dict[str, np.ndarray]:
    ran = networks.run(params, networks.names, batch.memories, batch.seen, batch.first)
    return {name: np.asarray(outputs) for name, (_, outputs) in ran.items()}


def moved(gradient) -> set[str]:
    return {name for name, tree in gradient.items() if any(np.any(leaf) for leaf in jax.tree.leaves(tree))}


@pytest.mark.parametrize(
    ("terms", "trained"),
    [
        (("improve",), {"guider"}),
        (("teach",), {"learner"}),
        (("pull_back",), {"guider"}),
        (("follow",), {"learner"}),
        (("critic",), {"critic"}),
        (("improve", "teach", "pull_back", "follow", "critic"), {"guider", "learner", "critic"}),
    ],
    ids=lambda names: "+".join(sorted(names)),
)
@pytest.mark.parametrize("name", ["gpo-clip", "gpo-penalty"])
def test_each_term_trains_its_own_network(name, terms, trained):
    goal = objective(name)
    params = bent(goal.networks.start(*jax.random.split(jax.random.key(0))))
    gradient = jax.grad(goal.total, has_aux=True)(params, seen_batch(goal.networks), jnp.asarray(0.7), terms)[0]
    assert moved(gradient) == trained


def test_a_shared_network_learns_from_all_terms_and_no_term_through_the_other_role():
    """Its gradient is the sum of those of two networks with the same parameters."""
    apart = objective("gpo-penalty")
    shared = dataclasses.replace(apart, networks=dataclasses.replace(apart.networks, shared=True))
    own = bent(shared.networks.start(*jax.random.split(jax.random.key(0))))
    assert set(own) == {"policy", "critic"}
    batch, terms = seen_batch(apart.networks), ("improve", "teach", "pull_back", "follow")
    both = {"guider": own["policy"], "learner": own["policy"], "critic": own["critic"]}
    one = jax.grad(shared.total, has_aux=True)(own, batch, jnp.asarray(0.7), terms)[0]
    two = jax.grad(apart.total, has_aux=True)(both, batch, jnp.asarray(0.7), terms)[0]
    expected = jax.tree.map(jnp.add, two["guider"], two["learner"])
    for a, b in zip(jax.tree.leaves(one["policy"]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(("name", "pull", "follow"), [("gpo-penalty", 0.7, 0.7), ("gpo-clip", 1.0, 3.0)])
def test_the_total_weighs_its_terms(name, pull, follow):
    follows = {"follow": FollowSettings(3.0)} if name == "gpo-clip" else {}
    goal = objective(name, **follows)
    params = bent(goal.networks.start(*jax.random.split(jax.random.key(0))))
    half = jnp.asarray([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    batch = seen_batch(goal.networks, weights={"critic": half})
    terms = ("improve", "teach", "pull_back", "follow", "critic")
    z = outputs_of(goal.networks, params, batch)
    alone = jax.tree.map(jnp.asarray, z)
    error = (z["critic"] - np.asarray(batch.targets["critic"])) ** 2
    expected = {
        "improve": goal.improve(alone, batch)[0],
        "teach": goal.teach(alone, "learner"),
        "pull_back": pull * goal.pull_back(alone, batch),
        "follow": follow * goal.follow(alone, batch)[0],
        "critic": 0.5 * 0.5 * (error * half).sum() / half.sum(),
    }
    total, log = goal.total(params, batch, jnp.asarray(0.7), terms)
    for term, value in expected.items():
        assert float(log[f"loss_{term}"]) == pytest.approx(float(value), rel=1e-4), term
    assert float(total) == pytest.approx(sum(map(float, expected.values())), rel=1e-4)


@pytest.mark.parametrize("sharpness", [0.5, 40.0])
def test_advisor_weighs_imitation_by_how_well_an_imitator_does(sharpness):
    """Means over steps of w KL and of (1 - w) times PPO: where no imitator can follow, imitation counts for nothing."""
    goal = objective("advisor-co", advice=AdviceSettings(sharpness), ppo=PpoSettings(entropy=0.0))
    params = bent(goal.networks.start(*jax.random.split(jax.random.key(0))))
    batch = seen_batch(goal.networks)
    z = outputs_of(goal.networks, params, batch)
    p = {role: special.softmax(z[role].astype(float), -1) for role in ("guider", "learner", "imitator")}
    w = np.exp(-sharpness * stats.entropy(p["guider"], p["imitator"], axis=-1))
    ratio = np.exp(chosen(z["learner"], ACTIONS) - np.asarray(batch.log_prob))
    surrogate = np.minimum(ratio * ADVANTAGE, ratio.clip(0.8, 1.2) * ADVANTAGE)
    terms = ("teach", "follow", "imitate")
    gradient, log = jax.grad(goal.total, has_aux=True)(params, batch, jnp.asarray(0.0), terms)
    assert float(log["advice"]) == pytest.approx(w.mean(), rel=1e-3)
    taught = (w * stats.entropy(p["guider"], p["learner"], axis=-1)).mean()
    assert float(log["loss_teach"]) == pytest.approx(taught, rel=1e-3)
    assert float(log["loss_follow"]) == pytest.approx(-((1 - w) * surrogate).mean(), rel=1e-3)
    imitated = stats.entropy(p["guider"], p["imitator"], axis=-1).mean()
    assert float(log["loss_imitate"]) == pytest.approx(imitated, rel=1e-3)
    # the imitator learns by imitation alone: the weights have no gradient
    alone = jax.grad(goal.total, has_aux=True)(params, batch, jnp.asarray(0.0), ("imitate",))[0]["imitator"]
    for a, b in zip(jax.tree.leaves(gradient["imitator"]), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert moved(gradient) == {"learner", "imitator"}


def test_alpha_follows_the_distance():
    penalty = PenaltySettings(target=0.01, start=0.1, largest=2.0)
    table = [  # alpha, distance, alpha afterwards
        (0.0, 0.009, 0.0),
        (0.0, 0.0101, 0.1),  # it wakes above the target
        (9e-6, 0.0101, 0.1),
        (0.5, 0.0119, 0.5),
        (0.5, 0.0121, 0.6),
        (0.5, 0.0084, 0.5),
        (0.5, 0.0083, 0.5 / 1.2),
        (1.9, 1.0, 2.0),
        (0.5, math.nan, 0.5),
    ]
    for alpha, distance, after in table:
        assert float(adapted(penalty, jnp.asarray(alpha), jnp.asarray(distance))) == pytest.approx(after, rel=1e-5)
