"""Model-free guiders: memories over updates, who sees and trains what, and what stays as it is."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from support.model_free import LOST, L, N, acting, finite, guider_of, programs, same, updated, valuing, viewing
from support.toys import advantages_by_sums

from gps.guiders.guider import iterate, update_keys
from gps.guiders.model_free.settings import PenaltySettings

# memories


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("name", ["gpo-clip", "ppo-asym", "sitt"])
def test_sequences_start_from_the_memories_that_acting_left(name, window):
    """In the third update, in the middle of episodes: the network of the sequences gives what acting gave."""
    guider = guider_of(name, memory=3, window=window)
    states, samples, _ = updated(guider, 3)
    (after, unroll), state = samples[2], states[2]
    assert not unroll.first[0].all()
    assert unroll.first[1:].any()
    seen, batch, memories = viewing(guider)(state, unroll)
    length = window or L
    assert batch.action.shape == (length, N * L // length, 2)
    acts = guider.plan.collects
    run = guider.networks.run
    act = jax.jit(
        lambda role, h, seen, first: run(state.params, (role,), {role: h}, seen, first)[role], static_argnums=0
    )
    for role in guider.networks.method.policies:
        memory, each = state.running.memories[role], []
        for t in range(L):  # step by step
            each.append(memory)
            one = {viewer: o[t : t + 1] for viewer, o in seen.items()}
            memory = act(role, memory, one, unroll.first[t : t + 1])[0][0]
        starts = np.stack(each)[::length].reshape(-1, 3)
        np.testing.assert_allclose(batch.memories[role], starts, atol=1e-6)
        np.testing.assert_allclose(memories[role], memory, atol=1e-6)
        np.testing.assert_array_equal(states[3].running.memories[role], memories[role])
    assert np.abs(batch.memories[acts]).max() > 0.01
    z = act(acts, batch.memories[acts], batch.seen, batch.first)[1]
    log_prob = guider.networks.distribution.log_prob(z, batch.action)
    np.testing.assert_allclose(log_prob, batch.log_prob, atol=1e-4)
    np.testing.assert_array_equal(after.first, unroll.done[-1])


@pytest.mark.parametrize("memory", [0, 3])
def test_targets_bootstrap_where_time_ran_out_and_at_the_end_of_the_unroll(memory):
    guider = guider_of("gpo-clip", memory=memory, reward_scale=0.5, discount=0.9, trace=0.8)
    states, samples, _ = updated(guider, 2)
    state, unroll = states[1], samples[1][1]
    assert unroll.truncated.any()
    assert (unroll.done & ~unroll.truncated).any()
    _, batch, _ = viewing(guider)(state, unroll)
    values, finals = (values["critic"] for values in valuing(guider)(state, unroll))
    arrays = [np.asarray(a) for a in (0.5 * unroll.reward, values, finals, unroll.done, unroll.truncated)]
    advantage = advantages_by_sums(*arrays, 0.9, 0.8)
    standard = (advantage - advantage.mean()) / advantage.std()
    windows = (lambda x: x.reshape(1, -1)) if not memory else (lambda x: x)
    np.testing.assert_allclose(batch.advantage, windows(standard), atol=1e-4)
    np.testing.assert_allclose(batch.targets["critic"], windows(advantage + arrays[1]), atol=1e-4)


# who sees what


@pytest.mark.parametrize("shared", [True, False])
def test_the_learner_never_sees_what_is_privileged_and_the_guider_does(shared):
    """Also once the normalisers have moved what is zero for the learner away from the mean."""
    guider = guider_of("gpo-clip", shared=shared)
    states, samples, _ = updated(guider, 3)
    state, networks = states[-1], guider.networks
    assert ("policy" in state.params) == shared
    obs = samples[-1][1].obs
    other = {**obs, "privileged_state": 3.0 - obs["privileged_state"]}
    one, two = (acting(guider)(state, o) for o in (obs, other))
    np.testing.assert_array_equal(one["learner"], two["learner"])
    assert np.abs(one["guider"] - two["guider"]).min() > 1e-5
    assert float(jnp.abs(state.normalizers["guider"].mean[:2]).min()) > 0.3
    # and it is the same function that acts when it is evaluated
    policy = guider.policy(state)
    acted = jax.jit(jax.vmap(jax.vmap(lambda o: policy.act(policy.start_memory(), o, jnp.zeros(2))[1])))(obs["state"])
    expected = networks.distribution.environment(networks.distribution.sample(one["learner"], jnp.zeros((L, N, 2))))
    np.testing.assert_allclose(acted, expected, atol=1e-6)


def test_normalisers_follow_everything_that_each_role_has_seen():
    guider = guider_of("gpo-clip")
    states, samples, _ = updated(guider, 3)
    obs = [unroll.obs for _, unroll in samples]
    state = np.concatenate([np.asarray(o["state"]).reshape(-1, 2) for o in obs])
    privileged = np.concatenate([np.asarray(o["privileged_state"]).reshape(-1, 2) for o in obs])
    for role, seen in (("learner", state), ("guider", np.hstack([privileged, state]))):
        normalizer = states[-1].normalizers[role]
        np.testing.assert_allclose(normalizer.mean, seen.mean(0), rtol=1e-4)
        np.testing.assert_allclose(normalizer.scale, seen.std(0), rtol=1e-4)
    still = guider_of("gpo-clip", normalize=False)
    assert same(updated(still, 1)[0][-1].normalizers, still.networks.start_normalizers())


@pytest.mark.parametrize(
    ("privileged", "names"),
    [
        (True, ["gpo-naive", "gpo-penalty", "gpo-clip", "gpo-clip-supervised", "gpo-ablation", "ppo-asym", "ppo-bc"]),
        (False, ["ppo", "a2d", "advisor", "advisor-co", "elf"]),
    ],
    ids=["critics-of-the-guider", "critics-of-the-learner"],
)
def test_what_a_critic_sees(privileged, names):
    """Before each step and after it. A teacher's critic sees what its teacher does, an imitator's never does."""
    unroll = updated(guider_of("gpo-clip"), 3)[1][-1][1]

    def other(what: str):
        """The unroll with all numbers of that observation changed."""
        obs, final = ({**seen, what: 3.0 - seen[what]} for seen in (unroll.obs, unroll.final))
        return dataclasses.replace(unroll, obs=obs, final=final)

    for name in names:
        guider = guider_of(name)
        sees = {"critic": privileged, "teacher_critic": True, "imitator_critic": False}
        assert "critic" in guider.networks.method.critics
        state = guider.init(jax.random.key(0))
        shown = (unroll, other("privileged_state"), other("state"))
        values, privately, openly = (valuing(guider)(state, one) for one in shown)
        for when in range(2):
            for critic, value in values[when].items():
                np.testing.assert_array_equal(privately[when][critic] != value, sees[critic], f"{critic} of {name}")
                assert (openly[when][critic] != value).all()


# the gradient steps of an update


def test_each_network_takes_one_step_of_adam_down_its_own_clipped_gradient():
    """By hand: g min(1, c / |g|), of which the first step is rate g / (|g| + 1e-5) and the first moment g / 10."""
    largest, rate = 4.0, 0.01
    settings = {"epochs": 1, "minibatches": 1, "gradient_norm": largest, "learning_rate": rate}
    guider = guider_of("gpo-clip", reward_scale=5.0, **settings)
    states, samples, _ = updated(guider_of("gpo-clip"), 3)  # they start alike
    before, terms = states[0], guider.plan.losses[0]
    after = jax.jit(guider.update)(before, samples[0], jax.random.key(1))[0]
    _, batch, _ = viewing(guider)(before, samples[0][1])
    goal = jax.grad(lambda params: guider.minimiser.objective.total(params, batch, jnp.zeros(()), terms)[0])
    clipped = {}
    moments_of = ravel_pytree(before.params)[1](optax.tree.get(after.optimizer_state["+".join(terms)], "mu"))
    for name, gradient in jax.jit(goal)(before.params).items():
        leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(gradient)]
        norm = np.sqrt(sum((leaf**2).sum() for leaf in leaves))
        clipped[name] = norm > largest
        trees = (moments_of, before.params, after.params)
        moments, old, new = (jax.tree.leaves(tree[name]) for tree in trees)
        for leaf, moment, p, q in zip(leaves, moments, old, new, strict=True):
            g = leaf * min(1.0, largest / norm)
            np.testing.assert_allclose(moment, 0.1 * g, rtol=1e-3, atol=1e-7)
            np.testing.assert_allclose(q - p, -rate * g / (np.abs(g) + 1e-5), rtol=1e-2, atol=1e-5)
    assert clipped == {"policy": False, "critic": True}


@pytest.mark.parametrize(
    ("name", "target", "start", "expected"),
    [
        # too far in each of three epochs: alpha wakes in the first, grows by 1.2 in the others, and has a largest value
        ("gpo-penalty", 1e-9, 0.0, [0.1 * 1.2**2, 0.1 * 1.2**5, 0.3]),
        ("gpo-ablation", 1e9, 0.25, [0.25 / 1.2**3, 0.25 / 1.2**6, 0.25 / 1.2**9]),  # too near in each
        ("gpo-ablation", 1e9, 0.0, [0.0, 0.0, 0.0]),
    ],
    ids=["far", "near", "asleep"],
)
def test_alpha_moves_after_each_epoch_of_an_update(name, target, start, expected):
    guider = guider_of(name, penalty=PenaltySettings(target=target, start=0.1, largest=0.3), epochs=3)
    samples = updated(guider_of("gpo-clip"), 3)[1]  # they start alike
    state = dataclasses.replace(guider.init(jax.random.key(0)), alpha=jnp.asarray(start))
    for alpha in expected:
        before = float(state.alpha)
        state, metrics = programs(guider)[1](state, samples[0], jax.random.key(3))
        assert float(state.alpha) == float(metrics["alpha"]) == pytest.approx(alpha, rel=1e-5)
        # the weight of the pull back over the epochs: it moves between them, not only after the last
        weight = float(metrics["loss_pull_back"] / metrics["kl_to_learner"])
        low, high = sorted((before, alpha))
        assert low < weight < high or weight == alpha == 0


# what each method does with its guider


def test_a_backtracked_guider_is_the_learner_when_it_collects():
    guider = guider_of("gpo-naive")
    states, samples, rows = updated(guider, 3)
    log_prob = guider.networks.distribution.log_prob
    for state, (_, unroll), row in zip(states, samples, rows, strict=False):
        z = acting(guider)(state, unroll.obs)
        np.testing.assert_allclose(z["guider"], z["learner"], atol=1e-6)
        np.testing.assert_allclose(log_prob(z["learner"], unroll.action), unroll.log_prob, atol=1e-4)
        assert float(row["kl_to_learner"]) > 1e-7  # it had moved, and was followed
    assert not same(states[1].params["learner"], states[2].params["learner"])


@pytest.mark.parametrize(
    ("name", "early", "late"),
    [
        ("ppo-bc", ["guider"] * 4, ["guider"] * 4),
        ("a2d", ["learner"] * 4, ["learner"] * 4),
        ("bc", ["guider"] * 4, ["guider"] * 4),
        ("dagger", ["guider"] * 4, ["learner"] * 4),
        ("elf", ["guider"] * 4, ["learner"] * 2 + ["imitator"] * 2),
    ],
)
def test_who_acts(name, early, late):
    """Told from the densities of the actions under each role."""
    guider = guider_of(name, shared=False)
    states, samples, _ = updated(guider, 4)
    log_prob = guider.networks.distribution.log_prob
    for i, who in ((1, early), (3, late)):
        unroll = samples[i][1]
        densities = {role: log_prob(z, unroll.action) for role, z in acting(guider)(states[i], unroll.obs).items()}
        for n, role in enumerate(who):
            fits = {one: np.allclose(own[:, n], unroll.log_prob[:, n], atol=1e-4) for one, own in densities.items()}
            assert fits[role]
            assert role == "guider" or not fits["guider"]


def test_elf_shapes_rewards_by_a_potential_that_ends_with_the_episode():
    guider = guider_of("elf", discount=0.9, trace=0.8)
    states, samples, _ = updated(guider, 4)
    state, unroll = states[3], samples[3][1]
    _, batch, _ = viewing(guider)(state, unroll)
    value, final = jax.tree.map(np.asarray, valuing(guider)(state, unroll))
    done, cut = np.asarray(unroll.done), np.asarray(unroll.truncated)
    assert (done & ~cut).any()
    assert cut.any()
    potential = np.where(done & ~cut, 0.0, final["imitator_critic"])
    shaped = np.asarray(unroll.reward) + 0.9 * potential - value["imitator_critic"]
    gained = advantages_by_sums(shaped, value["critic"], final["critic"], done, cut, 0.9, 0.8)
    own = gained[:, : N // 2]  # the learner's half
    np.testing.assert_allclose(batch.advantage, ((gained - own.mean()) / own.std()).reshape(1, -1), atol=1e-4)
    np.testing.assert_allclose(batch.targets["critic"], (gained + value["critic"]).reshape(1, -1), atol=1e-4)
    plain = advantages_by_sums(
        np.asarray(unroll.reward), value["imitator_critic"], final["imitator_critic"], done, cut, 0.9, 0.8
    )
    targets = (plain + value["imitator_critic"]).reshape(1, -1)
    np.testing.assert_allclose(batch.targets["imitator_critic"], targets, atol=1e-4)
    half = np.tile([1.0, 1.0, 0.0, 0.0], (L, 1)).reshape(1, -1)
    for who, counts in (("learner", half), ("critic", half), ("imitator_critic", 1.0 - half)):
        np.testing.assert_array_equal(batch.weights[who], counts)


# safeguards


def test_steps_that_diverge_are_counted_and_spoil_nothing():
    guider = guider_of("gpo-clip", LOST, memory=3)
    states, samples, rows = updated(guider, 4)
    for (_, unroll), row in zip(samples, rows, strict=True):
        assert int(row["diverged_samples"]) == int(unroll.diverged.sum())
        assert float(row["train_return"]) == pytest.approx(float(jnp.nanmean(unroll.returned)), rel=1e-5)
        assert finite({name: value for name, value in row.items() if name != "train_return"})
        assert float(row["failed_updates"]) == 0
    assert sum(int(row["diverged_samples"]) for row in rows) > 4
    assert finite((states[-1].params, states[-1].optimizer_state, states[-1].normalizers, states[-1].running.memories))


def test_an_update_that_is_not_finite_is_left_out_and_counted():
    guider = guider_of("gpo-clip")
    states, samples, _ = updated(guider, 3)
    after, unroll = samples[2]
    poisoned = dataclasses.replace(unroll, reward=unroll.reward.at[0, 0].set(jnp.inf))
    state, metrics = programs(guider)[1](states[2], (after, poisoned), jax.random.key(9))
    assert float(metrics["failed_updates"]) == 2 * 2  # epochs x minibatches: its advantages are normalised together
    assert same(state.params, states[2].params)
    assert same(state.optimizer_state, states[2].optimizer_state)


def test_an_iteration_is_its_updates_one_after_the_other():
    guider = guider_of("gpo-clip")
    state, key = guider.init(jax.random.key(0)), jax.random.key(5)
    whole, metrics = jax.jit(functools.partial(iterate, guider))(state, key)
    (collect, update), rows = programs(guider), []
    for collecting, updating in update_keys(guider, key):
        state, row = update(state, collect(state, collecting), updating)
        rows.append(row)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert int(whole.updates) == 2
    assert float(metrics["guider_entropy"]) == pytest.approx(np.mean([r["guider_entropy"] for r in rows]), rel=1e-4)
    assert float(metrics["diverged_samples"]) == sum(int(r["diverged_samples"]) for r in rows)


# names


def test_the_methods_are_named_without_importing_jax():
    code = "import sys; from gps.guiders.model_free.methods import METHODS; print(len(METHODS), 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["15", "False"]
