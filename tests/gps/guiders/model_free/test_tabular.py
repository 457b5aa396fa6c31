"""Guided policy optimisation in tables against enumeration, complex-step gradients and scipy; in float64.

Nothing on the numpy side uses a formula of the module: values, visits and E[Q|o,a] come from enumerated trajectories,
the gradient of the return from a complex step through its definition, and optima from scipy or from trying everything.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import log_softmax

from gps.guiders.model_free import tabular
from gps.guiders.model_free.tabular import Pomdp
from gps.settings import SettingsError
from gps.tasks.doors.tiger import TigerDoor, TigerDoorAlt, TigerDoorAltSettings, TigerDoorSettings

STEPS = (0.1, 1.0, 10.0, 100.0)
SIZES = ((2, 2, 1), (3, 2, 2), (4, 3, 3), (6, 2, 4))  # states, actions, observations

naive = jax.jit(tabular.gpo_naive, static_argnames="projection")
descend = jax.jit(tabular.mirror_descent)
worth = jax.jit(lambda pomdp, log_pi: tabular.evaluate(pomdp, tabular.lift(pomdp, log_pi)))


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def problem(seed, sizes, deterministic=False, discount=0.9):
    """A random problem and a learner for it; `deterministic`: a state always shows the same observation."""
    generator = np.random.default_rng([seed, *sizes])
    states, actions, observations = sizes
    emission = generator.dirichlet(np.ones(observations), states)
    if deterministic:
        emission = np.eye(observations)[np.arange(states) % observations]
    pomdp = Pomdp(
        jnp.asarray(generator.dirichlet(np.ones(states), (states, actions))),
        jnp.asarray(generator.normal(size=(states, actions))),
        jnp.asarray(emission),
        jnp.asarray(generator.dirichlet(np.ones(states))),
        discount,
    )
    return pomdp, jnp.asarray(log_softmax(generator.normal(size=(observations, actions)), axis=1))


def layered(seed, layers=3, width=2, actions=2, observations=2):
    """Episodes of at most `layers` steps, which end early with probability 0.3 a step; observations are shared."""
    generator = np.random.default_rng(seed)
    states = layers * width
    transition = np.zeros((states, actions, states))
    for t in range(layers - 1):
        here, there = slice(t * width, (t + 1) * width), slice((t + 1) * width, (t + 2) * width)
        transition[here, :, there] = 0.7 * generator.dirichlet(np.ones(width), (width, actions))
    start = np.zeros(states)
    start[:width] = generator.dirichlet(np.ones(width))
    emission = generator.dirichlet(np.ones(observations), states)
    reward = generator.normal(size=(states, actions))
    log_pi = log_softmax(generator.normal(size=(observations, actions)), axis=1)
    tables = (jnp.asarray(table) for table in (transition, reward, emission, start, 0.8))
    return Pomdp(*tables), jnp.asarray(log_pi)


def paths(pomdp, pi):
    """Every episode: its probability and its steps (state, observation, action)."""
    P, emission = np.asarray(pomdp.transition), np.asarray(pomdp.emission)

    def extend(probability, steps, s):
        for o, a in itertools.product(range(emission.shape[1]), range(pi.shape[1])):
            here, taken = probability * emission[s, o] * pi[o, a], [*steps, (s, o, a)]
            if (end := 1 - P[s, a].sum()) > 1e-12:
                yield here * end, taken
            for following in np.flatnonzero(P[s, a]):
                yield from extend(here * P[s, a, following], taken, following)

    for s in np.flatnonzero(pomdp.start):
        yield from extend(float(pomdp.start[s]), [], s)


def enumerated(pomdp, pi):
    """Return, visits, Q(s,a) and E[Q|o,a] as frequencies and mean returns-to-go over all episodes."""
    S, A = pomdp.reward.shape
    J, visits = 0.0, np.zeros(S)
    sums, counts = ({"s": np.zeros((S, A)), "o": np.zeros(pi.shape)} for _ in range(2))
    for probability, steps in paths(pomdp, pi):
        togo = 0.0
        for t, (s, o, a) in reversed(list(enumerate(steps))):
            togo = float(pomdp.reward[s, a]) + pomdp.discount * togo
            weight = probability * pomdp.discount**t
            visits[s] += weight
            for kind, index in (("s", (s, a)), ("o", (o, a))):
                sums[kind][index] += weight * togo
                counts[kind][index] += weight
        J += probability * togo
    return J, visits, sums["s"] / counts["s"], sums["o"] / counts["o"]


def expected_return(pomdp, pi):
    """J of a table pi that need not be normalised, nor real."""
    P, r, start = (np.asarray(table) for table in (pomdp.transition, pomdp.reward, pomdp.start))
    acts = np.asarray(pomdp.emission) @ pi
    onwards = np.einsum("sa,sat->st", acts, P)
    return start @ np.linalg.solve(np.eye(len(start)) - pomdp.discount * onwards, (acts * r).sum(1))


def gradient_and_weights(pomdp, pi):
    """dJ/dpi(a|o) by complex steps, and how often each observation is seen, discounted, by running the chain."""
    gradient = np.zeros(pi.shape)
    for index in np.ndindex(*pi.shape):
        moved = pi.astype(complex)
        moved[index] += 1e-30j
        gradient[index] = expected_return(pomdp, moved).imag / 1e-30
    onwards = pomdp.discount * np.einsum("sa,sat->st", np.asarray(pomdp.emission) @ pi, np.asarray(pomdp.transition))
    at, visits = np.asarray(pomdp.start), np.zeros(len(pomdp.start))
    for _ in range(600):
        visits, at = visits + at, at @ onwards
    return gradient, visits @ np.asarray(pomdp.emission)


def minimise(objective, shape):
    """The policy table at which a function of (log pi, pi) is smallest, by BFGS from the uniform one."""

    def of_logits(flat):
        log_pi = log_softmax(flat.reshape(shape), axis=1)
        return objective(log_pi, np.exp(log_pi))

    found = minimize(of_logits, np.zeros(np.prod(shape)), method="BFGS", options={"gtol": 1e-9})
    return np.exp(log_softmax(found.x.reshape(shape), axis=1))


@pytest.mark.parametrize("seed", range(3))
def test_evaluation_against_enumerated_episodes(seed):
    pomdp, log_pi = layered(seed)
    J, visits, q, _ = enumerated(pomdp, np.exp(log_pi))
    found = worth(pomdp, log_pi)
    np.testing.assert_allclose(found.value, J, atol=1e-13)
    np.testing.assert_allclose(found.visits, visits, atol=1e-13)
    np.testing.assert_allclose(found.q, q, atol=1e-13)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("step", STEPS)
def test_proposition_against_enumerated_episodes(seed, step):
    pomdp, log_pi = layered(seed)
    q = enumerated(pomdp, np.exp(log_pi))[3]
    expected = np.exp(log_softmax(np.asarray(log_pi) + step * q, axis=1))
    np.testing.assert_allclose(np.exp(naive(pomdp, log_pi, step)), expected, atol=1e-10)
    np.testing.assert_allclose(np.exp(descend(pomdp, log_pi, step)), expected, atol=1e-10)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("deterministic", [False, True])
def test_proposition_against_the_gradient_of_the_return(sizes, deterministic):
    """pi' ~ pi exp(step dJ/dpi / w), the closed form of <dJ/dpi, pi'> - sum_o w(o) KL(pi' || pi) / step."""
    for seed in range(8):
        pomdp, log_pi = problem(seed, sizes, deterministic)
        gradient, weights = gradient_and_weights(pomdp, np.exp(log_pi))
        for step in STEPS:
            expected = np.exp(log_softmax(np.asarray(log_pi) + step * gradient / weights[:, None], axis=1))
            np.testing.assert_allclose(np.exp(naive(pomdp, log_pi, step)), expected, atol=1e-10)
            np.testing.assert_allclose(np.exp(descend(pomdp, log_pi, step)), expected, atol=1e-10)


@pytest.mark.parametrize("step", [0.1, 1.0, 3.0])
def test_proposition_against_a_minimum_found_by_scipy(step):
    for seed in range(2):
        pomdp, log_pi = problem(seed, (4, 3, 3))
        old = np.asarray(log_pi)
        gradient, weights = gradient_and_weights(pomdp, np.exp(old))

        def objective(new, pi, old=old, gradient=gradient, weights=weights):
            return weights @ (pi * (new - old)).sum(1) - step * (gradient * pi).sum()

        np.testing.assert_allclose(np.exp(naive(pomdp, log_pi, step)), minimise(objective, old.shape), atol=1e-5)


@pytest.mark.parametrize("projection", ["bregman", "forward"])
def test_projections_against_a_minimum_found_by_scipy(projection):
    pomdp, log_pi = problem(5, (4, 3, 2))
    generator = np.random.default_rng(6)
    log_mu = log_softmax(generator.normal(size=(4, 2, 3)), axis=2)
    visits = generator.uniform(0.2, 2.0, 4)

    def divergence(new, pi):
        kl = pi * (new - log_mu) if projection == "bregman" else np.exp(log_mu) * (log_mu - new)
        return np.einsum("s,so,soa->", visits, pomdp.emission, kl)

    given = tabular.state_given_observation(pomdp, jnp.asarray(visits))
    found = np.exp(tabular.project(jnp.asarray(log_mu), given, log_pi, projection))
    np.testing.assert_allclose(found.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(found, minimise(divergence, (2, 3)), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_forward_projection_agrees_to_first_order_only(seed):
    pomdp, log_pi = problem(seed, (4, 3, 2))

    def difference(step):
        return np.abs(np.exp(naive(pomdp, log_pi, step, "forward")) - np.exp(descend(pomdp, log_pi, step))).max()

    assert difference(2e-3) / difference(1e-3) == pytest.approx(4.0, abs=0.05)
    assert difference(10.0) > 0.01


def test_forward_projection_loses_return_at_a_large_step():
    """From pi(a1) = 0.9 the guider jumps to the best action of each state; half of them are a1."""
    pomdp, log_pi = tabular.tiger_door_alt(), jnp.log(jnp.array([[0.9, 0.1]]))
    returns = [worth(pomdp, naive(pomdp, log_pi, 20.0, kind)).value for kind in ("bregman", "forward")]
    assert float(worth(pomdp, log_pi).value) == pytest.approx(0.95)
    # Mirror descent by hand: E[Q|a1] = 1 and E[Q|a2] = 1/2, so that the odds grow by exp(20 / 2).
    assert float(returns[0]) == pytest.approx(1 - 0.5 / (1 + 9 * np.exp(10)), abs=1e-12)
    assert float(returns[1]) == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize("step", [0.3, 0.45, 0.52, 1.0, 3.0])
def test_forward_projection_is_repelled_by_the_optimum_beyond_the_logarithm_of_the_golden_ratio(step):
    """1 - pi(a1) is multiplied by (e^step + e^-2step) / 2 near the optimum: below 1 for steps under log 1.618."""

    def moved(p):
        return 0.5 * (p * np.exp(2 * step) / (p * np.exp(2 * step) + 1 - p) + p / (p + (1 - p) * np.exp(step)))

    attracts = step < np.log((1 + np.sqrt(5)) / 2)
    limit = 1.0 if attracts else brentq(lambda p: moved(p) - p, 0.4, 0.999)
    pomdp = tabular.tiger_door_alt()
    run = jax.jit(lambda log_pi: jax.lax.fori_loop(0, 3000, lambda _, at: naive(pomdp, at, step, "forward"), log_pi))
    reached = np.exp(run(tabular.uniform(pomdp)))[0, 0]
    assert reached == pytest.approx(limit, abs=1e-9)
    assert attracts == (limit == 1.0)


@pytest.mark.parametrize("step", [0.3, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize(
    ("make", "learner", "guider", "imitation"), [("tiger_door", 0.8, 1.0, 0.5), ("tiger_door_alt", 1.0, 1.5, 0.75)]
)
def test_known_optima(make, learner, guider, imitation, step):
    """Whatever the step: at 1000 listening falls to exp(-433) before the learner knows what to do with it."""
    pomdp = tabular.tiger_door(listen_cost=0.2) if make == "tiger_door" else tabular.tiger_door_alt()
    run = jax.jit(lambda log_pi: jax.lax.fori_loop(0, 400, lambda _, at: naive(pomdp, at, step), log_pi))
    assert float(worth(pomdp, run(tabular.uniform(pomdp))).value) == pytest.approx(learner, abs=1e-9)
    teacher = tabular.best_guider(pomdp)
    assert float(tabular.evaluate(pomdp, teacher).value) == pytest.approx(guider, abs=1e-12)
    cloned = tabular.imitate(pomdp, teacher, tabular.uniform(pomdp))
    assert float(worth(pomdp, cloned).value) == pytest.approx(imitation, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_best_guider_against_every_deterministic_one(seed):
    pomdp, _ = problem(seed, (4, 3, 2))
    seeing = Pomdp(pomdp.transition, pomdp.reward, jnp.eye(4), pomdp.start, pomdp.discount)
    tried = [expected_return(seeing, np.eye(3)[list(chosen)]) for chosen in itertools.product(range(3), repeat=4)]
    assert float(tabular.evaluate(pomdp, tabular.best_guider(pomdp)).value) == pytest.approx(max(tried), abs=1e-12)


@pytest.mark.parametrize("projection", ["bregman", "forward"])
def test_what_is_never_seen_is_left_alone(projection):
    """Observation 0 belongs to a state that no episode reaches."""
    pomdp = Pomdp(jnp.zeros((2, 2, 2)), jnp.eye(2), jnp.eye(2), jnp.array([0.0, 1.0]))
    log_pi = jnp.log(jnp.array([[0.3, 0.7], [0.6, 0.4]]))
    moved = np.exp(naive(pomdp, log_pi, 1.0, projection))
    np.testing.assert_allclose(moved, [[0.3, 0.7], [0.6 / (0.6 + 0.4 * np.e), 0.4 * np.e / (0.6 + 0.4 * np.e)]])
    np.testing.assert_allclose(np.exp(descend(pomdp, log_pi, 1.0)), moved)


def test_unknown_projection():
    pomdp = tabular.tiger_door_alt()
    with pytest.raises(SettingsError, match="unknown projection 'bregmann'; did you mean 'bregman'"):
        tabular.gpo_naive(pomdp, tabular.uniform(pomdp), 1.0, "bregmann")


@pytest.mark.parametrize("kind", ["tiger-door", "tiger-door-alt"])
def test_tables_are_those_of_the_tasks(kind):
    """Each action at each moment that an episode can reach: reward, end, observation and what comes next."""
    task, tables = TigerDoor(TigerDoorSettings(0.25)), tabular.tiger_door(0.25)
    if kind == "tiger-door-alt":
        task, tables = TigerDoorAlt(TigerDoorAltSettings()), tabular.tiger_door_alt()

    def compare(state, row):
        np.testing.assert_array_equal(np.argmax(state.obs["state"]), np.argmax(tables.emission[row]))
        for action in range(task.actions.size):
            after = task.step(state, jnp.int32(action))
            assert float(after.reward) == float(tables.reward[row, action])
            assert float(after.done) == 1 - float(tables.transition[row, action].sum())
            if not after.done:
                compare(after, int(tables.transition[row, action].argmax()))

    for hidden in (0, 1):
        begun = (task.reset(jax.random.key(seed)) for seed in range(20))
        compare(next(state for state in begun if state.obs["privileged_state"][hidden]), hidden)
    np.testing.assert_array_equal(tables.start[:2], [0.5, 0.5])


def test_random_problems_are_problems():
    pomdp = tabular.random_pomdp(jax.random.key(0), 4, 3, 2, 0.9)
    for table in (pomdp.transition, pomdp.emission, pomdp.start):
        np.testing.assert_allclose(table.sum(-1), 1.0, atol=1e-12)
        assert (np.asarray(table) >= 0).all()
    assert len(np.unique(np.asarray(pomdp.transition).round(12))) == 4 * 3 * 4  # no draw is used twice
