"""Four methods without sampling: what each makes of a learner that sees all, and of one that sees a part.

A mass is brought to 0 from three starts, the conditions. Dynamics are linear and known, states are Gaussian, the
learner u = a o + b is fitted by weighted least squares: every number is exact. What the learner costs is compared with
the best learner that sees as much, found by minimising that cost directly, and with one that imitates the LQR.

Run: python benchmarks/one_lagrangian.py [--out one_lagrangian.png]    (docs/dual_ascent.md)
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from scipy.linalg import solve_discrete_are
from scipy.optimize import minimize

from controllers.kl import kl_per_step
from controllers.types import Gaussian, LinearDynamics, LinearGaussian, QuadraticCost
from gps.guiders.model_based import badmm, dgps, mdgps, sgps
from gps.guiders.model_based.local_model import LocalModel
from gps.guiders.model_based.method import Agreement, Condition

T, ITERATIONS, SHOWN = 30, 60, (1, 5, 10, 20, 40, 60)
LIMIT = 1.0  # nats per time step
STARTS = ((-1.0, 0.0), (0.5, 1.0), (1.5, -0.5))  # m, m/s
SEES = {"position and velocity": (1.0, 1.0), "position": (1.0, 0.0)}
A, B = np.array([[1.0, 0.1], [0.0, 0.9]]), np.array([[0.0], [0.1]])  # 0.1 s a step
H = np.diag([1.0, 0.0, 0.1])  # of 1/2 z'Hz, z = (position, velocity, u)
P = solve_discrete_are(A, B, H[:2, :2], H[2:, 2:])  # the cost of the end: what the LQR has still to pay
LQR = np.append(-np.linalg.solve(H[2:, 2:] + B.T @ P @ B, B.T @ P @ A), 0.0)
METHODS: dict[str, Any] = {
    "dgps": dgps.Dgps(dgps.DgpsSettings(penalty=1.0, rate=1.0)),
    "sgps": sgps.Sgps(sgps.SgpsSettings(price=sgps.PriceSettings(rate=0.01))),
    "badmm": badmm.Badmm(badmm.BadmmSettings(penalty=badmm.PenaltySettings(start=0.1, rule="fixed"))),
    "mdgps": mdgps.Mdgps(mdgps.MdgpsSettings()),
}
Theta = Float[Array, "3"]  # a, of position and velocity, and b


def along(*arrays: Any) -> Any:
    """The same at every time step."""
    return [jnp.broadcast_to(jnp.asarray(array), (T, *np.shape(array))) for array in arrays]


def everywhere(controller: LinearGaussian) -> LinearGaussian:
    """The same in every condition."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(STARTS), *leaf.shape)), controller)


def linear(theta: Theta, std: float = 0.2) -> LinearGaussian:
    """The learner with these parameters."""
    return LinearGaussian(*along(theta[None, :2], theta[2:], std * np.eye(1)))


def local_models() -> LocalModel:
    """Of all conditions; around 0, so that deviations are coordinates."""

    def one(start):
        dynamics = LinearDynamics(*along(A, B, np.zeros(2), 1e-4 * np.eye(2)))
        stages, slopes, constants = along(H, np.zeros(3), 0.0)
        cost = QuadraticCost(stages, slopes, constants, jnp.asarray(P), jnp.zeros(2), jnp.zeros(()))
        initial = Gaussian(start, 0.01 * jnp.eye(2))
        return LocalModel(jnp.zeros((T + 1, 2)), jnp.zeros((T, 1)), initial, dynamics, cost)

    return jax.vmap(one)(jnp.array(STARTS))


def expected_cost(models: LocalModel, learner: LinearGaussian) -> Float[Array, ""]:
    """E[cost] of an episode, mean over conditions."""
    return jax.vmap(LocalModel.expected_cost, in_axes=(0, None))(models, learner).mean()


def fitted(method: Any, models: LocalModel, controllers: LinearGaussian, duals: Any, sees: Array) -> Theta:
    """The learner by weighted least squares, over points with the mean and the covariance of the states."""

    def sums(model, controller, duals):
        states = model.marginals(controller)
        root = jnp.sqrt(2.0) * jnp.linalg.cholesky(states.cov[:-1])
        xs = jnp.moveaxis(states.mean[:-1, :, None] + jnp.concatenate([root, -root], axis=2), 2, 0)
        actions, precisions, weights = method.targets(controller, duals, xs)
        seen = jnp.concatenate([xs * sees, jnp.ones((*xs.shape[:2], 1))], axis=-1)
        weighted = seen * (weights * precisions[:, 0, 0])[:, None]
        return jnp.einsum("ntx,nty->xy", weighted, seen), jnp.einsum("ntx,nt->x", weighted, actions[..., 0])

    left, right = (each.sum(0) for each in jax.vmap(sums)(models, controllers, duals))
    return jnp.linalg.solve(left + 1e-12 * jnp.eye(3), right)  # the 1e-12 is for what is not seen


def costs(method: Any, models: LocalModel, sees: Array) -> Float[Array, " iterations"]:
    """What the learner costs after each iteration: improve, teach, pull back."""

    def condition(model, reference, learner) -> Condition:
        samples: Any = None  # these methods do not look at them
        return Condition(model, samples, learner, reference, jnp.asarray(LIMIT * T), jnp.ones(()))

    def improve(model, reference, learner, duals):
        return method.improve(condition(model, reference, learner), duals).controller

    def pull_back(model, controller, learner, duals):
        agreement = Agreement(controller, learner, kl_per_step(controller, learner, model.marginals(controller)))
        return method.pull_back(agreement, condition(model, controller, learner), duals, jnp.asarray(True))[0]

    def iterate(carry, _):
        controllers, learner, duals = carry
        reference = learner if method.learner_leads else controllers
        controllers = jax.vmap(improve)(models, reference, learner, duals)
        policy = linear(fitted(method, models, controllers, duals, sees))
        learner = everywhere(policy)
        duals = jax.vmap(pull_back)(models, controllers, learner, duals)
        return (controllers, learner, duals), expected_cost(models, policy)

    first = everywhere(linear(jnp.zeros(3), 0.5))
    carry = first, everywhere(linear(jnp.zeros(3))), jax.vmap(method.start)(first)
    return jax.lax.scan(iterate, carry, length=ITERATIONS)[1]


def best(models: LocalModel, sees: Array) -> float:
    """What the best learner costs that sees as much."""
    value = jax.jit(jax.value_and_grad(lambda theta: expected_cost(models, linear(theta * jnp.append(sees, 1.0)))))
    return minimize(value, np.zeros(3), jac=True, tol=1e-9).fun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="one_lagrangian.png", help="the figure (default: %(default)s)")
    out = parser.parse_args().out
    jax.config.update("jax_enable_x64", True)
    models = local_models()
    runs = {name: jax.jit(lambda sees, method=method: costs(method, models, sees)) for name, method in METHODS.items()}
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, (seen, mask) in zip(figure.subplots(1, 2, sharey=True), SEES.items(), strict=True):
        sees = jnp.array(mask)
        least = best(models, sees)
        imitator = fitted(METHODS["mdgps"], models, everywhere(linear(jnp.asarray(LQR))), (), sees)
        imitation = float(expected_cost(models, linear(imitator))) - least
        print(f"learner sees {seen}: the best one costs {least:.4f}, one that imitates the LQR {imitation:.1e} more")
        print("after   " + "".join(f"{number:10}" for number in SHOWN))
        if imitation > 1e-6:
            axes.axhline(imitation, color="k", linestyle=":", label="imitation of the LQR")
        for name, run in runs.items():
            above = np.asarray(run(sees)) - least
            print(f"{name:8}" + "".join(f"{above[number - 1]:10.1e}" for number in SHOWN))
            axes.semilogy(np.arange(ITERATIONS) + 1, np.maximum(above, 1e-9), label=name)
        axes.set(xlabel="iteration", title=f"learner sees {seen}", ylim=(1e-6, 30))
    figure.axes[0].set(ylabel="cost above the best learner's")
    figure.axes[1].legend(fontsize=7)
    figure.savefig(out, dpi=120)
    print(f"figure: {out}")


if __name__ == "__main__":
    main()
