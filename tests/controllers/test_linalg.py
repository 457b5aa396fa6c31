"""Linear algebra of small matrices against numpy."""

import jax
import numpy as np
import pytest

from controllers import linalg

solve_positive, pivots, inverse_factor = (
    jax.jit(jax.vmap(function)) for function in (linalg.solve_positive, linalg.pivots, linalg.inverse_factor)
)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


SIZES = (1, 2, linalg.FEW, linalg.FEW + 1, 12)


def random_matrices(n, condition, count=20):
    """Symmetric positive definite, of this condition number and of very different sizes."""
    rng = np.random.default_rng(n)
    vectors = np.linalg.qr(rng.normal(size=(count, n, n)))[0]
    values = condition ** np.linspace(0.0, -1.0, n) * 10.0 ** rng.uniform(-3, 3, size=(count, 1))
    a = (vectors * values[:, None, :]) @ vectors.mT
    return 0.5 * (a + a.mT)


@pytest.mark.parametrize("n", [1, 3, linalg.SMALL, linalg.SMALL + 1])
def test_product_is_the_product(n):
    rng = np.random.default_rng(n)
    a, b, c = rng.normal(size=(5, n)), rng.normal(size=(n, 4)), rng.normal(size=n)
    np.testing.assert_allclose(linalg.product(a, b), a @ b, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(linalg.product(a, c), a @ c, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("n", SIZES)
def test_solve_positive_is_as_good_as_numpy(n):
    b = np.random.default_rng(0).normal(size=(20, n, 3))
    a = random_matrices(n, 100.0)
    np.testing.assert_allclose(solve_positive(a, b), np.linalg.solve(a, b), rtol=1e-10)
    a = random_matrices(n, 1e10)  # the error of x is large for any method: what counts is that of a x
    x = np.asarray(solve_positive(a, b))
    size = np.abs(a).max((1, 2)) * np.abs(x).max((1, 2))
    assert (np.abs(a @ x - b).max((1, 2)) < 100.0 * n * np.finfo(float).eps * size).all()


@pytest.mark.parametrize("n", SIZES)
def test_solve_positive_keeps_float32_and_its_accuracy(n):
    a = random_matrices(n, 100.0).astype(np.float32)
    b = np.random.default_rng(0).normal(size=(20, n, 3)).astype(np.float32)
    x = solve_positive(a, b)
    exact = np.linalg.solve(a.astype(float), b)
    assert x.dtype == np.float32
    size = np.abs(exact).max((1, 2), keepdims=True)
    np.testing.assert_allclose(x / size, exact / size, atol=1e-4)


@pytest.mark.parametrize("n", SIZES)
def test_pivots_and_solutions_tell_whether_a_matrix_is_positive_definite(n):
    rng = np.random.default_rng(n)
    a = random_matrices(n, 10.0, 60)
    smallest = np.linalg.eigvalsh(a)[:, :1, None]
    a = a - rng.choice([0.0, 0.9, 1.1, 3.0, 30.0], size=(60, 1, 1)) * smallest * np.eye(n)
    positive = np.linalg.eigvalsh(a)[:, 0] > 0.0
    assert 0.2 < positive.mean() < 0.8
    np.testing.assert_array_equal((pivots(a) > 0.0).all(1), positive)
    x = np.asarray(solve_positive(a, np.ones((60, n, 2))))
    np.testing.assert_array_equal(np.isfinite(x).all((1, 2)), positive)
    assert np.isnan(x[~positive]).all()
    S = np.asarray(inverse_factor(a))
    np.testing.assert_array_equal(np.isfinite(S).all((1, 2)), positive)
    assert np.isnan(S[~positive][:, *np.tril_indices(n)]).all()


def test_zero_and_nan_are_not_positive_definite():
    for a in (np.zeros((2, 2)), np.diag([1.0, 0.0]), np.diag([np.nan, 1.0]), np.array([[1.0, np.nan], [np.nan, 1.0]])):
        assert np.isnan(linalg.solve_positive(a, np.ones((2, 1)))).all()
        assert not (linalg.pivots(a) > 0.0).all()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-3)])
def test_inverse_factor_is_the_cholesky_factor_of_the_inverse(n, dtype, tolerance):
    a = random_matrices(n, 100.0).astype(dtype)
    S = inverse_factor(a)
    factor = np.linalg.cholesky(np.linalg.inv(a.astype(float)))
    size = np.abs(factor).max((1, 2), keepdims=True)
    assert S.dtype == dtype
    np.testing.assert_allclose(S / size, factor / size, atol=tolerance)
