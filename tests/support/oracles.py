"""Answers reached another way: dense numpy and scipy solves of small linear-quadratic problems.

Nothing here is recursive in time and nothing is imported from the packages under test. A whole trajectory is
one vector y = (x[0], u[0], x[1], u[1], ..., x[T]); costs are one quadratic in y, and every distribution over
trajectories is one Gaussian over y.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.stats


class Problem(NamedTuple):
    """A time-varying linear-quadratic problem; the fields are in the order of the classes under test."""

    dynamics: tuple  # A (T nx nx), B (T nx nu), c (T nx), cov (T nx nx)
    cost: tuple  # H (T nz nz), g (T nz), c (T), H_final (nx nx), g_final (nx), c_final ()
    initial: tuple  # mean (nx), cov (nx nx)

    @property
    def sizes(self):
        """T, nx, nu."""
        T, nx, nu = self.dynamics[1].shape
        return T, nx, nu


def random_covariance(rng, n, scale=1.0):
    """Well-conditioned n x n covariance with correlations."""
    a = rng.normal(size=(n, n))
    return scale * (a @ a.T / n + 0.2 * np.eye(n))


def random_problem(seed, T=6, nx=3, nu=2, cost_scale=1.0) -> Problem:
    """Non-symmetric A, stage costs with cross terms and linear terms, correlated noise."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(T, nx, nx)) / np.sqrt(nx)
    B = rng.normal(size=(T, nx, nu)) / np.sqrt(nu)
    cov = np.stack([random_covariance(rng, nx, 0.05) for _ in range(T)])
    H = np.stack([random_covariance(rng, nx + nu, cost_scale) for _ in range(T)])
    g = cost_scale * rng.normal(size=(T, nx + nu))
    cost = (H, g, rng.normal(size=T), random_covariance(rng, nx, cost_scale), rng.normal(size=nx), rng.normal())
    return Problem((A, B, rng.normal(size=(T, nx)), cov), cost, (rng.normal(size=nx), random_covariance(rng, nx, 0.3)))


def random_controller(seed, T=6, nx=3, nu=2):
    """K (T nu nx), k (T nu), chol (T nu nu) of a linear-Gaussian controller with correlated actions."""
    rng = np.random.default_rng(10_000 + seed)
    chol = np.stack([np.linalg.cholesky(random_covariance(rng, nu, 0.5)) for _ in range(T)])
    return 0.3 * rng.normal(size=(T, nu, nx)), 0.3 * rng.normal(size=(T, nu)), chol


def rollout(problem: Problem, x0, us, first=0):
    """States x[first..T] reached from x[first] = x0 without noise."""
    A, B, c, _ = problem.dynamics
    xs = [np.asarray(x0)]
    for t, u in enumerate(us, start=first):
        xs.append(A[t] @ xs[-1] + B[t] @ u + c[t])
    return np.stack(xs)


def follow(problem: Problem, K, k, x, first=0):
    """States and actions of the controller's mean from x[first] = x, without noise."""
    A, B, c, _ = problem.dynamics
    xs, us = [np.asarray(x)], []
    for t in range(first, len(k)):
        us.append(K[t] @ xs[-1] + k[t])
        xs.append(A[t] @ xs[-1] + B[t] @ us[-1] + c[t])
    return np.stack(xs), np.array(us).reshape(-1, k.shape[1])


def path_cost(problem: Problem, xs, us, first=0):
    """Cost of states x[first..T] and actions u[first..T-1]."""
    H, g, c, H_final, g_final, c_final = problem.cost
    total = 0.5 * xs[-1] @ H_final @ xs[-1] + g_final @ xs[-1] + c_final
    for t, (x, u) in enumerate(zip(xs[:-1], us, strict=True), start=first):
        z = np.concatenate([x, u])
        total += 0.5 * z @ H[t] @ z + g[t] @ z + c[t]
    return total


def path_quadratic(problem: Problem):
    """H, g, c of the cost of a whole trajectory y: 1/2 y'Hy + g'y + c."""
    H, g, c, H_final, g_final, c_final = problem.cost
    return scipy.linalg.block_diag(*H, H_final), np.concatenate([g.ravel(), g_final]), c.sum() + c_final


def open_loop_maps(problem: Problem):
    """y = X x0 + U (u[0], ..., u[T-1]) + d without noise: the dynamics eliminated."""
    T, nx, nu = problem.sizes

    def path(x0, us):
        xs = rollout(problem, x0, us)
        return np.concatenate([np.concatenate([xs[:-1], us], axis=1).ravel(), xs[-1]])

    d = path(np.zeros(nx), np.zeros((T, nu)))
    X = np.stack([path(e, np.zeros((T, nu))) - d for e in np.eye(nx)], axis=1)
    U = np.stack([path(np.zeros(nx), e.reshape(T, nu)) - d for e in np.eye(T * nu)], axis=1)
    return X, U, d


def action_quadratic(problem: Problem, x0):
    """Hessian and gradient (at zero) of the cost in all T nu actions together, from x0 without noise."""
    H, g, _ = path_quadratic(problem)
    X, U, d = open_loop_maps(problem)
    return U.T @ H @ U, U.T @ (H @ (X @ x0 + d) + g)


def optimal_actions(problem: Problem, x0):
    """Open-loop optimal actions (T nu) from x0 without noise, and their cost."""
    hessian, gradient = action_quadratic(problem, x0)
    T, _, nu = problem.sizes
    us = -np.linalg.solve(hessian, gradient).reshape(T, nu)
    return us, path_cost(problem, rollout(problem, x0, us), us)


def maximum_entropy_conditional(problem: Problem, x0, us, temperature):
    """Mean and covariance of u[t] given u[0..t-1] = us, where all actions are ~ exp(-cost / temperature).

    Without noise, from x0: one Gaussian over the T nu actions, conditioned by the block formula.
    """
    t, nu = us.shape
    hessian, gradient = action_quadratic(problem, x0)
    cov = temperature * np.linalg.inv(hessian)
    mean = -np.linalg.solve(hessian, gradient)
    past, here = slice(0, t * nu), slice(t * nu, (t + 1) * nu)
    gain = np.linalg.solve(cov[past, past], cov[past, here]).T
    return mean[here] + gain @ (us.ravel() - mean[past]), cov[here, here] - gain @ cov[past, here]


def trajectory_gaussian(problem: Problem, controller):
    """Mean and covariance of y under (K, k, chol): y = M y + m + e, so y = (I - M)^-1 (m + e)."""
    (A, B, c, noise), (K, k, chol) = problem.dynamics, controller
    mean0, cov0 = problem.initial
    T, nx, nu = problem.sizes
    nz = nx + nu
    n = T * nz + nx
    M, m = np.zeros((n, n)), np.zeros(n)
    m[:nx] = mean0
    for t in range(T):
        x, u = slice(t * nz, t * nz + nx), slice(t * nz + nx, (t + 1) * nz)
        following = slice((t + 1) * nz, (t + 1) * nz + nx)
        M[u, x], m[u] = K[t], k[t]
        M[following, x], M[following, u], m[following] = A[t], B[t], c[t]
    spread = [cov0] + [block for t in range(T) for block in (chol[t] @ chol[t].T, noise[t])]
    inverse = np.linalg.inv(np.eye(n) - M)
    return inverse @ m, inverse @ scipy.linalg.block_diag(*spread) @ inverse.T


def expected_path_cost(problem: Problem, controller):
    """E[cost] of a trajectory under the controller."""
    H, g, c = path_quadratic(problem)
    mean, cov = trajectory_gaussian(problem, controller)
    return 0.5 * np.sum(H * (cov + np.outer(mean, mean))) + g @ mean + c


def gaussian_kl(mean_p, cov_p, mean_q, cov_q):
    """KL(N(mean_p, cov_p) || N(mean_q, cov_q)) in nats."""
    ratio = np.linalg.solve(cov_q, cov_p)
    gap = mean_q - mean_p
    return 0.5 * (np.trace(ratio) - len(gap) - np.linalg.slogdet(ratio)[1] + gap @ np.linalg.solve(cov_q, gap))


def trajectory_kl(problem: Problem, p, q):
    """KL in nats between the trajectory distributions of two controllers, by their dense joint Gaussians."""
    return gaussian_kl(*trajectory_gaussian(problem, p), *trajectory_gaussian(problem, q))


def entropies(controller):
    """Entropy in nats of u[t] given x[t], for each t."""
    chol = controller[2]
    nu = chol.shape[-1]
    return 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.eye(nu) @ chol @ chol.mT)[1]


def soft_cost(problem: Problem, controller, temperature):
    """E[cost] - sum of temperature[t] * entropy(p(u[t] | x))."""
    return expected_path_cost(problem, controller) - np.sum(temperature * entropies(controller))


def constrained_controller(problem: Problem, reference, limit, entropy_weight, std_floor=0.0):
    """Minimise `soft_cost` over K, k, chol subject to trajectory KL <= limit, by sequential quadratic programming.
    No diagonal element of chol may be below `std_floor`.

    Searches the controller's own numbers; the multiplier of the constraint plays no part.
    """
    T, nx, nu = problem.sizes
    rows, columns = np.tril_indices(nu)
    diagonal = rows == columns

    def pack(K, k, chol):
        lower = chol[:, rows, columns]
        return np.concatenate([K.ravel(), k.ravel(), np.where(diagonal, np.log(np.abs(lower)), lower).ravel()])

    def unpack(theta):
        K, k, lower = np.split(theta, [T * nu * nx, T * nu * (nx + 1)])
        lower = lower.reshape(T, -1)
        chol = np.zeros((T, nu, nu))
        chol[:, rows, columns] = np.where(diagonal, np.exp(lower), lower)
        return K.reshape(T, nu, nx), k.reshape(T, nu), chol

    free = np.full(T * nu * (nx + 1), -np.inf)
    lowest = np.log(std_floor) if std_floor else -np.inf
    lowest = np.append(free, np.tile(np.where(diagonal, lowest, -np.inf), T))
    result = scipy.optimize.minimize(
        lambda theta: soft_cost(problem, unpack(theta), entropy_weight),
        pack(*reference),
        jac="3-point",
        method="SLSQP",
        bounds=scipy.optimize.Bounds(lowest, np.inf) if std_floor else None,
        constraints={
            "type": "ineq",
            "fun": lambda theta: limit - trajectory_kl(problem, unpack(theta), reference),
            "jac": lambda theta: scipy.optimize.approx_fprime(
                theta, lambda at: limit - trajectory_kl(problem, unpack(at), reference), 1e-7
            ),
        },
        options={"ftol": 1e-13, "maxiter": 500},
    )
    if not result.success:
        raise RuntimeError(f"the oracle did not converge: {result.message}")
    return unpack(result.x)


def niw_dynamics(w, nx, prior, strength):
    """Linear-Gaussian x' = A x + B u + c from the rows of w = (x, u, x' - x), under a normal-inverse-Wishart prior.

    Conditions the posterior mean and covariance of w on (x, u). prior: slope of x' - x on (x, u), covariance of (x, u),
    covariance of the noise; together one covariance of w, which weighs as `strength` observations. Nothing is known of
    the mean.
    """
    inputs = w.shape[1] - nx
    cov = niw_scatter(w, niw_covariance(*prior), strength) / (strength + len(w))
    slope = cov[inputs:, :inputs] @ np.linalg.inv(cov[:inputs, :inputs])
    noise = cov[inputs:, inputs:] - slope @ cov[:inputs, inputs:]
    mean = w.mean(0) if len(w) else np.zeros(w.shape[1])
    return slope[:, :nx] + np.eye(nx), slope[:, nx:], mean[inputs:] - slope @ mean[:inputs], noise


def niw_covariance(slope, inputs, noise):
    """Covariance of (z, y) where y = slope z + noise."""
    return np.block([[inputs, inputs @ slope.T], [slope @ inputs, slope @ inputs @ slope.T + noise]])


def niw_scatter(w, cov, strength):
    """The matrix of the inverse-Wishart posterior, from the rows of w."""
    psi = strength * cov
    for row in w:
        psi = psi + np.outer(row - w.mean(0), row - w.mean(0))
    return psi


def niw_left_out(w, inputs, cov, strength):
    """sum over rows of log p(row's last numbers | its first `inputs`, the other rows), as Student's t densities."""

    def log_density(row, others, cov):
        size, count = len(row), len(others)
        degrees = strength + size + 1 + count - size + 1  # of the posterior, less those of a t density
        shape = niw_scatter(others, cov, strength) * (count + 1) / (count * degrees)
        return scipy.stats.multivariate_t(others.mean(0), shape, degrees).logpdf(row)

    total = 0.0
    for i, row in enumerate(w):
        others = np.delete(w, i, axis=0)
        total += log_density(row, others, cov)
        total -= log_density(row[:inputs], others[:, :inputs], cov[:inputs, :inputs])
    return total


def windowed_regression(xs, us, std, window, strength):
    """Controller gains K, k and covariance by least squares at each t over the samples of steps near it.

    xs (N T nx) and us (N T nu) count in deviations from their means over samples. The prior on the slope is
    what all steps together give, and weighs as much as `strength` samples of their mean scatter.
    """
    (samples, T, nx), nu = xs.shape, us.shape[-1]
    mean_x, mean_u = xs.mean(0), us.mean(0)
    dx, du = xs - mean_x, us - mean_u
    pooled_x, pooled_u = dx.reshape(-1, nx), du.reshape(-1, nu)
    scatter = pooled_x.T @ pooled_x / len(pooled_x)
    variances = np.diag(scatter)
    scatter = scatter + np.diag(1e-4 * variances + 1e-6 * variances.max() + 1e-10)
    prior = np.linalg.solve(scatter, pooled_x.T @ pooled_u / len(pooled_x)).T
    root = np.linalg.cholesky(strength * scatter).T  # rows of made-up data that the prior stands for
    Ks, covs = [], []
    for t in range(T):
        near = slice(max(0, t - window), min(T, t + window + 1))
        x, u = dx[:, near].reshape(-1, nx), du[:, near].reshape(-1, nu)
        share = np.sqrt(samples / len(x))
        rows = np.concatenate([share * x, root]), np.concatenate([share * u, root @ prior.T])
        K = np.linalg.lstsq(*rows, rcond=None)[0].T
        left = u - x @ K.T
        Ks.append(K)
        covs.append(left.T @ left / len(x) + np.diag(std**2))
    K = np.stack(Ks)
    return K, mean_u - np.einsum("tux,tx->tu", K, mean_x), np.stack(covs)


def badly_scaled_problem(seed, drift=1.0):
    """100 steps of a slightly unstable oscillator with weights from 1e-3 to 1e3; `drift` scales the affine term."""
    problem = random_problem(seed, T=100)
    _, B, c, noise = problem.dynamics
    A = 1.01 * np.array([[np.cos(0.3), np.sin(0.3), 0.1], [-np.sin(0.3), np.cos(0.3), 0.0], [0.0, 0.2, 0.9]])
    scale = np.diag(np.sqrt([1e3, 1.0, 1e-3, 1e-3, 1e2]))
    H, g, *rest = problem.cost
    dynamics, cost = (np.tile(A, (100, 1, 1)), B, drift * c, noise), (scale @ H @ scale, g @ scale, *rest)
    return problem._replace(dynamics=dynamics, cost=cost)
