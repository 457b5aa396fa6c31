"""Guided policy optimisation in tables: every expectation is exact, so that its central proposition can be seen.

A learner pi(a|o) acts on what it observes alone; a guider mu(a|s,o) sees the state as well. One iteration of
GPO-naive copies the learner into the guider's space (backtracking), improves the guider there, and projects it
back onto the learners.

Proposition. Let Q and d be the action values and the discounted visits of pi; weight states by w(s,o) = d(s) p(o|s),
so that w(s|o) is what an observation says about the state when pi acts. Let the guider improve by one step of policy
mirror descent with the KL divergence,

    mu'(a|s,o) = pi(a|o) exp(step Q(s,a)) / Z(s,o),

and let the learner be the nearest one in the same divergence (reverse KL; ~ is "proportional to"),

    pi' = argmin over pi' of sum w(s,o) KL(pi'(.|o) || mu'(.|s,o)),  hence
    pi'(a|o) ~ exp(sum_s w(s|o) log mu'(a|s,o)) ~ pi(a|o) exp(step E[Q|o,a])  with  E[Q|o,a] = sum_s w(s|o) Q(s,a).

As dJ/dpi(a|o) = w(o) E[Q|o,a], this is a step of mirror descent on the learner's own return J, with the divergence
sum_o w(o) KL(pi'(.|o) || pi(.|o)): exactly, for any step, and although the guider saw the state. It is what is
known of Bregman divergences in general: a free step, then a projection, is a step within the constraint.

- The weights have to be the same in both parts. Those of pi's own visits make the result the gradient of J.
- The guider has to see o too: mu(a|s) can not hold a pi(a|o) whose observation is drawn at random in s.
- The maximum-likelihood fit (forward KL), pi'(a|o) = E[mu'(a|s,o)|o], agrees to first order in the step only. At
  large steps it imitates a greedy guider: on `tiger_door_alt` the learner's optimum repels it beyond a step of
  log((1 + sqrt 5) / 2) = 0.48.

Student-informed teachers (`informed`). The guider maximises E[sum discount^t (r - lambda KL(mu || pi))] for a learner
that stays, and is mu ~ pi exp(Q / lambda) with soft values; the learner then imitates it where it acts, which is the
best that a learner can do for the same objective. So that alternating never lowers it.

On `tiger_door`, of listening cost c, the guider knows the door, and the learner guesses it. Once the learner does what
it has heard, listening is worth 1 - c to the guider, and each alternation multiplies the learner's odds of listening
by 2 exp((1 - c) / lambda) / (1 + exp(1 / lambda)). The guider begins to listen at the lambda where that is 1:

    c = lambda log(2 / (1 + exp(-1 / lambda))),  which for small c is  lambda = c / log 2:

it listens where that costs less than lambda times the log 2 nats by which it is ahead of a learner that guesses.

Policies are tables of log probabilities, (O, A) of a learner and (S, O, A) of a guider: exp(-1000) is zero even in
float64, and mirror descent never comes back from zero.

Source:
    Proposition 1 of Li, Xie and Lu, "Guided Policy Optimization under Partial Observability", arXiv 2505.15418;
    derived here for memoryless learners and for observations that are drawn at random. Messikommer, Xing, Aljalbout,
    Scaramuzza, "Student-informed teacher training", arXiv 2412.09149; what it comes to in tables is derived here.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, logsumexp
from jaxtyping import Array, Float, PRNGKeyArray

from gps.settings import unknown


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pomdp:
    """S states, A actions, O observations: in state s one sees o ~ emission[s] and acts a, for reward[s, a].

    A row of `transition` may sum to less than 1: with the missing probability the episode ends there. A time
    limit is the step counted in the state. Without a discount, episodes have to end with probability 1.
    """

    transition: Float[Array, "S A S"]  # [s, a, s'], probability of s' after a in s
    reward: Float[Array, "S A"]  # mean
    emission: Float[Array, "S O"]  # rows sum to 1
    start: Float[Array, " S"]  # sums to 1
    discount: float | Float[Array, ""] = 1.0  # per step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evaluation:
    """What a policy is worth."""

    value: Float[Array, ""]  # J, expected discounted return
    q: Float[Array, "S A"]  # expected discounted return after a in s
    visits: Float[Array, " S"]  # d(s) = sum_t discount^t P(s[t] = s); its sum is the mean discounted length


def uniform(pomdp: Pomdp) -> Float[Array, "O A"]:
    """The learner to start with: every action is as likely."""
    actions = pomdp.reward.shape[1]
    return jnp.full((pomdp.emission.shape[1], actions), -jnp.log(actions))


def lift(pomdp: Pomdp, log_pi: Float[Array, "O A"]) -> Float[Array, "S O A"]:
    """Backtracking: the guider that acts as the learner, whatever the state."""
    return jnp.broadcast_to(log_pi, (len(pomdp.start), *log_pi.shape))


def evaluate(pomdp: Pomdp, log_mu: Float[Array, "S O A"]) -> Evaluation:
    """Return, action values and visits of a guider, by two linear solves; `lift` a learner first.

    With P[s,s'] and r[s] the means over the policy's actions: V = r + discount P V, d = start + discount P^T d.
    """
    acts = jnp.einsum("so,soa->sa", pomdp.emission, jnp.exp(log_mu))
    onwards = pomdp.discount * jnp.einsum("sa,sat->st", acts, pomdp.transition)
    rest = jnp.eye(len(onwards)) - onwards
    v = jnp.linalg.solve(rest, (acts * pomdp.reward).sum(1))
    visits = jnp.maximum(jnp.linalg.solve(rest.T, pomdp.start), 0.0)  # rounding may leave -1e-17 of no visits
    return Evaluation(pomdp.start @ v, pomdp.reward + pomdp.discount * pomdp.transition @ v, visits)


def best_guider(pomdp: Pomdp) -> Float[Array, "S O A"]:
    """The optimum of who sees the state, by policy iteration: the first of equally good actions."""

    def greedy(q):
        chosen = jnp.log(jax.nn.one_hot(q.argmax(1), q.shape[1], dtype=q.dtype))
        return jnp.broadcast_to(chosen[:, None], (len(q), pomdp.emission.shape[1], q.shape[1]))

    def rises(values):
        last, now = values
        return (now > last + 1e3 * jnp.finfo(now.dtype).eps * (1 + jnp.abs(now))).any()

    def iterate(values):
        return values[1], evaluate(pomdp, greedy(values[1])).q

    first = evaluate(pomdp, lift(pomdp, uniform(pomdp))).q
    return greedy(jax.lax.while_loop(rises, iterate, (jnp.full_like(first, -jnp.inf), first))[1])


def state_given_observation(pomdp: Pomdp, visits: Float[Array, " S"]) -> Float[Array, "S O"]:
    """w(s|o) = d(s) p(o|s) / sum_s d(s) p(o|s); a column of zeros where o is never seen."""
    weights = visits[:, None] * pomdp.emission
    total = weights.sum(0)
    return weights / jnp.where(total > 0, total, 1.0)


def project(
    log_mu: Float[Array, "S O A"], given: Float[Array, "S O"], log_pi: Float[Array, "O A"], projection: str
) -> Float[Array, "O A"]:
    """The learner nearest to a guider; where an observation is never seen, that is `log_pi`.

    Args:
        log_mu: the guider.
        given: w(s|o), see `state_given_observation`.
        log_pi: the learner before.
        projection: "bregman" minimises KL(learner || guider), "forward" KL(guider || learner).

    Errors:
        SettingsError for another projection. "bregman" is NaN where guiders exclude each other's every action.
    """
    weights = given[:, :, None]
    if projection == "bregman":
        nearest = log_softmax(jnp.where(weights > 0, weights * log_mu, 0.0).sum(0))
    elif projection == "forward":
        nearest = logsumexp(log_mu, axis=0, b=weights)
    else:
        raise unknown("projection", projection, ("bregman", "forward"))
    return jnp.where(given.any(0)[:, None], nearest, log_pi)


def gpo_naive(pomdp: Pomdp, log_pi: Float[Array, "O A"], step_size, projection: str = "bregman"):
    """One iteration: backtrack, improve the guider by mirror descent, project it onto the learners.

    Args:
        pomdp: the problem.
        log_pi: the learner.
        step_size: in nats per unit of reward; the larger, the nearer is the guider to the greedy one.
        projection: "bregman" (the proposition's) or "forward" (maximum likelihood).

    Returns:
        The next learner, (O, A).
    """
    log_mu = lift(pomdp, log_pi)
    now = evaluate(pomdp, log_mu)
    log_mu = log_softmax(log_mu + step_size * now.q[:, None])
    return project(log_mu, state_given_observation(pomdp, now.visits), log_pi, projection)


def mirror_descent(pomdp: Pomdp, log_pi: Float[Array, "O A"], step_size) -> Float[Array, "O A"]:
    """One step of policy mirror descent on the learner itself, which sees no state: pi' ~ pi exp(step E[Q|o,a])."""
    now = evaluate(pomdp, lift(pomdp, log_pi))
    return log_softmax(log_pi + step_size * state_given_observation(pomdp, now.visits).T @ now.q)


def imitate(pomdp: Pomdp, log_mu: Float[Array, "S O A"], log_pi: Float[Array, "O A"]) -> Float[Array, "O A"]:
    """The maximum-likelihood fit to a guider where that guider itself acts: behaviour cloning."""
    given = state_given_observation(pomdp, evaluate(pomdp, log_mu).visits)
    return project(log_mu, given, log_pi, "forward")


def informed_guider(pomdp: Pomdp, log_pi: Float[Array, "O A"], price) -> Float[Array, "S O A"]:
    """The guider that maximises E[sum discount^t (r - price KL(mu(.|s,o) || pi(.|o)))], by soft value iteration.

    mu(a|s,o) ~ pi(a|o) exp(Q(s,a) / price), where Q = r + discount P V and
    V(s) = price sum_o p(o|s) log sum_a pi(a|o) exp(Q(s,a) / price).

    Args:
        price: lambda, in units of reward per nat.
    """

    def preferences(values):
        q = pomdp.reward + pomdp.discount * pomdp.transition @ values
        return log_pi + q[:, None] / price

    def improved(values):
        return price * (pomdp.emission * logsumexp(preferences(values), axis=-1)).sum(1)

    def moves(pair):
        last, now = pair
        return (jnp.abs(now - last) > 1e2 * jnp.finfo(now.dtype).eps * (1 + jnp.abs(now))).any()

    first = jnp.zeros(len(pomdp.start))
    values = jax.lax.while_loop(moves, lambda pair: (pair[1], improved(pair[1])), (first, improved(first)))[1]
    return log_softmax(preferences(values))


def informed(pomdp: Pomdp, log_pi: Float[Array, "O A"], price) -> Float[Array, "O A"]:
    """One alternation of student-informed teaching: the guider at this price, then the learner that imitates it."""
    return imitate(pomdp, informed_guider(pomdp, log_pi, price), log_pi)


def random_pomdp(key: PRNGKeyArray, states: int, actions: int, observations: int, discount: float) -> Pomdp:
    """Every distribution uniform on its simplex, rewards standard normal."""
    go, pay, see, begin = jax.random.split(key, 4)

    def simplex(key, *shape):
        draws = jax.random.exponential(key, shape)
        return draws / draws.sum(-1, keepdims=True)

    transition, emission = simplex(go, states, actions, states), simplex(see, states, observations)
    return Pomdp(transition, jax.random.normal(pay, (states, actions)), emission, simplex(begin, states), discount)


def tiger_door(listen_cost: float = 0.1) -> Pomdp:
    """`gps.tasks.doors.tiger.TigerDoor` as tables: state 2 l + s has the tiger at s, and l = 1 after listening."""
    opens = jnp.array([[0.0, 1.0, -listen_cost], [1.0, 0.0, -listen_cost]])
    listens = jnp.zeros((4, 3, 4)).at[[0, 1], 2, [2, 3]].set(1.0)
    emission = jnp.eye(3)[jnp.array([0, 0, 1, 2])]
    return Pomdp(listens, jnp.tile(opens, (2, 1)), emission, jnp.array([0.5, 0.5, 0.0, 0.0]))


def tiger_door_alt() -> Pomdp:
    """`gps.tasks.doors.tiger.TigerDoorAlt` as tables: states A and B, one observation, one step."""
    return Pomdp(jnp.zeros((2, 2, 2)), jnp.diag(jnp.array([2.0, 1.0])), jnp.ones((2, 1)), jnp.array([0.5, 0.5]))
