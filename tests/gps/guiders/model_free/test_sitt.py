"""Student-informed teacher training: who is trained by what, what each phase leaves alone, and who sees what."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_free import L, N, finite, guider_of, kl, programs, same, thrown, updated, viewing
from support.toys import Clock, Watched

from gps.guiders.model_free.batch import sequences_of
from gps.guiders.model_free.plan import ALIGN
from gps.guiders.model_free.settings import SittSettings
from policies.network import HEAD

ALONE = SittSettings(price=0.0, pull=0.0, paired=0.5, epochs=2, minibatches=1)


def moved(before, after) -> set[str]:
    return {name for name in before if not same(before[name], after[name])}


def test_without_price_and_pull_the_guider_is_that_of_ppo_to_the_last_bit():
    """The teacher that bc trains first, in the same order of minibatches."""
    sitt, ppo = guider_of("sitt", sitt=ALONE), guider_of("bc")
    (one, *_), samples, _ = updated(sitt, 1)
    other = jax.jit(ppo.init)(jax.random.key(0))
    assert same(one.params["guider"], other.params["guider"])
    for i in range(2):
        key = jax.random.key(10 + i)
        one, _ = programs(sitt)[1](one, samples[0], key)
        other, _ = programs(ppo)[1](other, samples[0], jax.random.split(key)[0])
        assert same(one.params["guider"], other.params["guider"])
        assert same(one.params["critic"], other.params["teacher_critic"])
        assert same(one.normalizers["guider"], other.normalizers["guider"])


# the terms


@pytest.fixture(scope="module")
def trained():
    """A guider, its state after two updates with its policies thrown, and the batch of the third."""
    guider = guider_of("sitt", sitt=SittSettings(pull=0.3, paired=0.5, epochs=2, minibatches=1, learning_rate=0.01))
    states, samples, _ = updated(guider, 3)
    state = thrown(states[2])
    return guider, state, viewing(guider)(state, samples[2][1])[1]


def gradients(guider, state, batch, terms):
    def loss(params):
        return guider.minimiser.objective.total(params, batch, jnp.zeros(()), terms)

    return jax.jit(jax.grad(loss, has_aux=True))(state.params)


@pytest.mark.parametrize(
    ("terms", "names"),
    [
        (("improve",), ("guider",)),
        (("informed",), ("guider",)),
        (("align",), ("learner",)),
        (("mirror",), ("proxy",)),
        (ALIGN, ("learner", "proxy")),
        (("improve", "informed", "critic"), ("critic", "guider")),
    ],
    ids="+".join,
)
def test_each_term_trains_its_own_network(trained, terms, names):
    guider, state, batch = trained
    gradient, _ = gradients(guider, state, batch, terms)
    moved = [name for name, tree in gradient.items() if any(np.any(leaf) for leaf in jax.tree.leaves(tree))]
    assert tuple(sorted(moved)) == guider.networks.trained_by(terms) == names
    assert not set(state.params["learner"]["params"]) & set(HEAD)  # the head is the guider's


def test_informing_moves_the_encoder_and_not_the_head(trained):
    """Against the gradient of the formula, in which the head is a constant."""
    guider, state, batch = trained
    networks, own = guider.networks, state.params["guider"]["params"]
    gradient, log = gradients(guider, state, batch, ("informed",))
    x, side = batch.seen["guider"][0, :, 2:], batch.seen["guider"][0, :, :2]
    side = jnp.concatenate([side, jnp.ones((len(side), 1))], axis=1)
    head = {name: np.asarray(layer) for name, layer in own["head"].items()}
    mirrored = networks.run(state.params, ("proxy",), batch.memories, batch.seen, batch.first)["proxy"][1][0]

    def divergence(encoder):
        features = jnp.tanh(
            x @ encoder["input"]["kernel"] + encoder["input"]["bias"] + side @ encoder["side"]["kernel"]
        )
        z = features @ head["kernel"] + head["bias"]
        (m, s), (n, r) = ((p[:, :2], jax.nn.softplus(p[:, 2:]) + 1e-3) for p in (z, mirrored))
        return 0.3 * (jnp.log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5).sum(-1).mean()

    value, expected = jax.value_and_grad(divergence)({name: own[name] for name in ("input", "side")})
    assert float(log["loss_informed"]) == pytest.approx(float(value), rel=1e-3)
    for layer, tree in expected.items():
        for name, leaf in tree.items():
            np.testing.assert_allclose(gradient["guider"]["params"][layer][name], leaf, atol=1e-6)
    assert float(jnp.abs(expected["input"]["kernel"]).max()) > 1e-5
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["guider"]["params"]["head"]))


@pytest.mark.parametrize("outputs", [True, False])
def test_alignment_is_a_mean_absolute_difference_of_features_and_outputs(trained, outputs):
    guider, state, batch = trained
    other = guider_of("sitt", sitt=dataclasses.replace(guider.settings.sitt, mirror_outputs=outputs))
    log = gradients(other, state, batch, ALIGN)[1]
    seen = {name: np.asarray(x[0], float) for name, x in batch.seen.items()}
    everything = np.hstack([seen["guider"], np.ones((len(seen["guider"]), 1))])
    features = {}
    for name in ("guider", "learner", "proxy"):
        layers = jax.tree.map(np.asarray, state.params[name]["params"])
        x = seen["learner"] if name == "learner" else everything[:, 2:4]
        inner = x @ layers["input"]["kernel"] + layers["input"]["bias"]
        inner = inner if name == "learner" else inner + everything[:, [0, 1, 4]] @ layers["side"]["kernel"]
        features[name] = np.tanh(inner)
    head = jax.tree.map(np.asarray, state.params["guider"]["params"]["head"])
    z = {name: f @ head["kernel"] + head["bias"] for name, f in features.items()}
    align = np.abs(features["learner"] - features["guider"]).mean() + np.abs(z["learner"] - z["guider"]).mean()
    mirror = np.abs(features["proxy"] - features["learner"]).mean()
    mirror += np.abs(z["proxy"] - z["learner"]).mean() if outputs else 0.0
    assert float(log["loss_align"]) == pytest.approx(align, rel=1e-4)
    assert float(log["loss_mirror"]) == pytest.approx(mirror, rel=1e-4)
    assert float(log["kl_to_learner"]) == pytest.approx(kl(z["guider"], z["learner"]).mean(), rel=1e-2)


# the phases


def test_each_phase_leaves_the_others_networks_as_they_were(trained):
    guider, state, batch = trained
    run = jax.jit(guider.minimiser.run, static_argnums=0)
    every = jnp.arange(batch.first.shape[1]).reshape(1, 1, -1)
    improve, align = guider.plan.losses
    assert (improve, align) == (("improve", "informed", "critic"), ALIGN)
    assert moved(state.params, run(improve, batch, state, every)[0].params) == {"guider", "critic"}
    assert moved(state.params, run(align, batch, state, every)[0].params) == {"learner", "proxy"}


def test_alignment_alone_lowers_both_losses_and_leaves_the_guider_as_it_is(trained):
    """Nothing collapses: what the guider does stays, and it is the learner that comes to it."""
    guider, state, batch = trained
    run = jax.jit(guider.minimiser.run, static_argnums=0)
    before = gradients(guider, state, batch, ALIGN)[1]
    after, _ = run(ALIGN, batch, state, jnp.tile(jnp.arange(batch.first.shape[1]), (50, 2, 1)))
    log = gradients(guider, after, batch, ALIGN)[1]
    assert float(log["loss_align"]) < 0.7 * float(before["loss_align"])
    assert float(log["loss_mirror"]) < 0.7 * float(before["loss_mirror"])
    assert same(after.params["guider"], state.params["guider"])


def test_the_learner_sees_the_paired_environments_alone():
    """Of the others its observations may be none at all: nothing of an update but its normaliser would see them."""
    guider = guider_of("sitt")
    states, samples, _ = updated(guider, 3)
    state, unroll = states[2], samples[2][1]
    assert guider.paired == N // 2
    shown = np.asarray(unroll.obs["state"])[:, : N // 2].reshape(-1, 2)
    before = state.normalizers["learner"]
    count = float(before.count) + len(shown)
    mean = (float(before.count) * np.asarray(before.mean) + shown.sum(0)) / count
    np.testing.assert_allclose(states[3].normalizers["learner"].count, count)
    np.testing.assert_allclose(states[3].normalizers["learner"].mean, mean, rtol=1e-4)
    batch = viewing(guider)(state, unroll)[1]
    unseen = jnp.where((jnp.arange(L * N) % N < N // 2)[:, None], batch.seen["learner"], jnp.nan)
    blind = dataclasses.replace(batch, seen={**batch.seen, "learner": unseen})
    run = jax.jit(guider.minimiser.run, static_argnums=0)
    for terms, order in zip(guider.plan.losses, guider._orders(guider.plan, jax.random.key(1)), strict=True):
        assert same(run(terms, blind, state, order), run(terms, batch, state, order))
    assert finite(run(ALIGN, blind, state, order)[0].params)


@pytest.mark.parametrize("memory", [0, 3])
def test_the_learner_that_is_evaluated_acts_by_the_guiders_head(memory):
    guider = guider_of("sitt", memory=memory)
    state = updated(guider, 3)[0][-1]
    policy = guider.policy(state)
    for name in HEAD[:1]:
        assert same(policy.params["params"][name], state.params["guider"]["params"][name])
    assert same(guider.networks.policy.without_head(policy.params), state.params["learner"])


# images


@pytest.mark.parametrize(("against", "shown"), [("proxy", N // 2), ("learner", N)])
def test_an_image_is_made_for_a_learner_that_sees_a_step_and_for_nobody_else(against, shown):
    task = Watched()
    guider = guider_of("sitt", task, sitt=SittSettings(against=against, paired=0.5, epochs=2, minibatches=1))
    states, samples, rows = updated(guider, 2)
    jax.effects_barrier()
    assert task.looks == 2 * L * shown
    unroll = samples[1][1]
    assert unroll.obs["image"].shape == (L, shown, 36)
    numbers = np.asarray(unroll.obs["state"], np.float16)[:, :shown, 1:]
    np.testing.assert_array_equal(unroll.obs["image"], np.repeat(numbers, 36, axis=-1))
    assert "image" not in unroll.final
    assert {name for name, own in states[0].params.items() if "eyes" in own["params"]} == {"learner"}
    assert moved(states[0].params["learner"]["params"], states[1].params["learner"]["params"]) >= {"eyes", "input"}
    assert all(finite(state.params) for state in states)
    assert float(rows[1]["kl_to_learner"]) > 0.0


def test_what_alignment_makes_of_images_is_what_the_learner_would_do():
    """Against its policy, step by step, in the paired environments, whose sequences are taken in another order."""
    guider = guider_of("sitt", Watched(), memory=3, window=L // 2)
    states, samples, _ = updated(guider, 2)
    state, unroll, before = states[1], samples[1][1], states[1].running.memories["learner"]
    assert not np.any(before[guider.paired :])  # nobody sees what happens there
    batch, after = viewing(guider)(state, unroll)[1:]
    order = guider._orders(guider.plan, jax.random.key(1))[1][0, 0]
    assert len(order) < batch.first.shape[1]
    some = sequences_of(batch, order, N)
    z = guider.networks.run(state.params, ("learner",), some.memories, some.seen, some.first)["learner"][1]

    policy = guider.policy(state)
    step = jax.jit(jax.vmap(lambda h, o: policy.moments(h, o)))
    h, means = before[: guider.paired], []
    seen = np.concatenate([unroll.obs["state"][:, : guider.paired], unroll.obs["image"]], axis=-1)
    for first, o in zip(unroll.first, seen, strict=True):
        h, mean, _ = step(jnp.where(first[: guider.paired, None], 0.0, h), o)
        means.append(mean)
    np.testing.assert_allclose(after["learner"][: guider.paired], h, atol=1e-6)
    W = guider.window
    for sequence, outputs in zip(np.asarray(order), jnp.swapaxes(z, 0, 1), strict=True):
        row, environment = divmod(sequence, N)
        expected = np.stack(means)[row * W : (row + 1) * W, environment]
        np.testing.assert_allclose(guider.networks.distribution.action_moments(outputs)[0], expected, atol=1e-5)


def test_a_guider_without_images_acts_on_what_is_left_of_all_observations():
    guider = guider_of("sitt", Watched())
    (state, *_), samples, _ = updated(guider, 1)
    obs = jax.tree.map(lambda o: o[0, 0], {name: samples[0][1].obs[name] for name in ("state", "privileged_state")})
    policy = guider.guiding(state)
    seen = jnp.concatenate([obs["privileged_state"], obs["state"]])
    given = {"guider": policy.normalizer(seen)[None, None]}
    memories, first = guider.networks.start_memories(1), jnp.zeros((1, 1), bool)
    own = guider.networks.run(state.params, ("guider",), memories, given, first)["guider"][1][0, 0]
    action = policy.act(policy.start_memory(), jnp.concatenate([seen, jnp.full(36, 0.7)]), jnp.zeros(2))[1]
    np.testing.assert_allclose(action, jnp.tanh(own[:2]), rtol=1e-5)


@pytest.mark.parametrize("name", ["gpo-clip", "ppo"])
def test_a_guider_that_shares_the_learners_network_sees_its_images_and_so_does_a_critic_of_its_own(name):
    guider = guider_of(name, Watched())
    states, samples, _ = updated(guider, 1)
    for obs in (samples[0][1].obs, samples[0][1].final):
        np.testing.assert_array_equal(obs["state"][..., 2:], np.repeat(obs["state"][..., 1:2], 36, axis=-1))
    assert all("eyes" in own["params"] for own in states[0].params.values())


@pytest.mark.parametrize("name", ["bc", "dagger", "ppo-asym"])
def test_guiders_and_critics_beside_a_learner_that_sees_do_without_images(name):
    task = Watched()
    guider = guider_of(name, task)
    states, samples, _ = updated(guider, 3)
    jax.effects_barrier()
    assert task.looks == 3 * L * N
    assert {own for own, params in states[0].params.items() if "eyes" in params["params"]} == {"learner"}
    assert same(samples[0][1].obs["image"][..., :1], samples[0][1].obs["state"][..., 1:].astype(np.float16))
    assert moved(states[2].params["learner"]["params"], states[3].params["learner"]["params"]) >= {"eyes", "input"}


# options


def test_heads_of_their_own_are_trained_in_alignment():
    guider = guider_of("sitt", sitt=SittSettings(shared_head=False, paired=0.5, epochs=2, minibatches=1))
    states, samples, _ = updated(guider, 3)
    batch = viewing(guider)(states[2], samples[2][1])[1]
    gradient, _ = gradients(guider, states[2], batch, ALIGN)
    for name in ("learner", "proxy"):
        assert not same(states[3].params[name]["params"]["head"], states[3].params["guider"]["params"]["head"])
        assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient[name]["params"]["head"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["guider"]))


def test_the_pull_can_be_on_features(trained):
    guider, state, batch = trained
    other = guider_of("sitt", sitt=dataclasses.replace(guider.settings.sitt, pull_on="features"))
    log = gradients(other, state, batch, ("informed",))[1]
    names = ("guider", "proxy")
    inputs = batch.memories, batch.seen, batch.first
    own, mirrored = (part for _, part in guider.networks.run(state.params, names, *inputs, decode=False).values())
    assert float(log["loss_informed"]) == pytest.approx(0.3 * float(np.abs(own - mirrored).mean()), rel=1e-5)


# settings


class Open(Clock):
    """A clock that hides nothing."""

    privileged_size = 0

    def _obs(self, data):
        return {"state": super()._obs(data)["state"]}


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("price", -0.1, "price must be at least 0, not -0.1"),
        ("price", float("nan"), "price must be at least 0, not nan"),
        ("pull", float("inf"), "pull must be finite, not inf"),
        ("paired", 0.0, "paired must be a share of the environments, above 0 and at most 1, not 0.0"),
        ("paired", 1.5, "paired must be a share of the environments"),
        ("against", "prox", "unknown against 'prox'; did you mean 'proxy'"),
        ("pull_on", "feature", "unknown pull_on 'feature'; did you mean 'features'"),
        ("learning_rate", 0.0, "learning_rate must be positive"),
    ],
)
def test_impossible_settings_are_named(setting, value, message):
    with pytest.raises(ValueError, match=message):
        SittSettings(**{setting: value})


def test_settings_that_do_not_fit_each_other_or_the_task_are_named():
    with pytest.raises(ValueError, match=r"guider\.sitt\.paired = 0\.1 of 4 environments is none: take at least 0\.25"):
        guider_of("sitt", sitt=SittSettings(paired=0.1))
    with pytest.raises(
        ValueError, match=r"guider\.sitt\.minibatches = 3 does not divide the 16 sequences .* 1, 2, 4, 8"
    ):
        guider_of("sitt", sitt=SittSettings(paired=0.5, minibatches=3))
    with pytest.raises(ValueError, match="guider 'sitt' needs a privileged observation, which open has not"):
        guider_of("sitt", Open(name="open"))
