"""Sizes are counted from shapes, as a count by hand does it, and what is too large is refused before it is made."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from gps.experiments.sizes import bytes_of, countable, largest_step, memory, require_room
from gps.settings import SettingsError


def test_the_largest_step_of_a_program_is_found_inside_its_loops_and_branches():
    def body(x, _):
        wide = jnp.outer(x, x)  # 50 x 50
        return x + wide.sum(0), x[:3]

    def program(x):
        x, kept = jax.lax.scan(body, x, None, length=7)
        y = jax.lax.cond(x[0] > 0, lambda: jnp.cumsum(jnp.outer(x, x[:40]), 0).sum(), lambda: x.sum())
        return x, kept, y

    traced = jax.jit(program).trace(jax.ShapeDtypeStruct((50,), jnp.float32))
    assert largest_step(traced.jaxpr) == 4 * 50 * 50
    assert bytes_of(traced.jaxpr.in_avals) == 4 * 50
    assert bytes_of(traced.jaxpr.out_avals) == 4 * (50 + 7 * 3 + 1)


def test_what_is_too_large_names_its_largest_settings(monkeypatch):
    monkeypatch.setattr("gps.experiments.sizes.memory", lambda: 10**9)
    settings = {"run": {"seed": 10**9}, "guider": {"a": [3, 5000], "b": 2.5, "c": True, "d": {"e": 70}, "f": 1}}
    require_room(1e9, settings)
    with pytest.raises(SettingsError) as error:
        require_room(2.5e12, settings)
    assert str(error.value) == (
        "this run would take 2.5 TB of memory, and there are 1 GB: lower its largest settings (guider.a = 5000, "
        "guider.d.e = 70, guider.f = 1)"
    )
    for error in (OverflowError(), MemoryError(), ValueError("array is too big; ...")):
        with pytest.raises(SettingsError, match="more memory than there can be: lower its"), countable(settings):
            raise error
    with pytest.raises(ValueError, match="another"), countable(settings):
        raise ValueError("another")


def test_the_limit_of_the_environment_is_kept_where_it_is_lower_than_the_machine(monkeypatch):
    machine = memory()
    monkeypatch.setenv("GPS_MEMORY_GB", "0.25")
    assert memory() == 250_000_000
    with pytest.raises(SettingsError, match="300 MB of memory, and there are 250 MB: lower its largest"):
        require_room(3e8, {"task": {"a": 5}})
    monkeypatch.setenv("GPS_MEMORY_GB", "1e9")
    assert memory() == machine
    for wrong in ("", "much", "nan", "inf", "0", "-3"):
        monkeypatch.setenv("GPS_MEMORY_GB", wrong)
        with pytest.raises(SettingsError, match=f"GPS_MEMORY_GB = '{wrong}' in the environment: it must be a number"):
            memory()
