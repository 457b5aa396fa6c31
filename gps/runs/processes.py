"""Several processes, of one host or of many, that train one run together (`jax.distributed`).

Process 0 leads: it alone reads and writes the run's folder, evaluates the learner and prints. The others follow
(`gps.runs.follow`): they compute their share of every iteration. All call the same programs in the same order, and meet
before each, so that none waits inside a program for one that still compiles, evaluates or saves: there XLA waits for
half a minute only.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # for its client: nothing public waits for processes without a collective
from jax.experimental import multihost_utils

from gps.errors import UserError, described

# ms that a process waits for the others, which may draw figures; the dead are found sooner
_PATIENCE = 24 * 3600 * 1000
_FAREWELL = 5 * 1000  # ms, where somebody presses Ctrl-C
_ENDED, _LEFT, _WELCOME = "gps/ended/", "gps/left/", "gps/welcome"
_meetings = itertools.count()


class PartedError(UserError):
    """Another process of the run has ended, so that this one can not go on."""


def join(count: int | None, coordinator: str | None, process: int | None) -> None:
    """Become one of the processes of a run; called before anything else of jax is.

    Args:
        count: of processes; None where the cluster says all three (Slurm, Open MPI, Kubernetes, as JAX detects them).
        coordinator: host:port, where process 0 listens.
        process: the number of this one, from 0.

    Errors:
        PartedError where no cluster is found, or the others are not. A process that does not reach the coordinator
        within five minutes is aborted by JAX.
    """
    given = None if count is None else "deactivate"
    jax.config.update("jax_enable_preemption_service", False)  # with it SIGTERM ends nothing
    jax.config.update("jax_enable_recoverability", True)  # without it JAX aborts whoever survives another process
    try:
        jax.distributed.initialize(coordinator, count, process, cluster_detection_method=given)
    except ValueError as error:
        raise PartedError(
            "--processes auto: no cluster that JAX knows has started this process; give their number, --coordinator "
            f"and --process ({error})"
        ) from error
    except RuntimeError as error:
        raise PartedError(f"the processes of a run do not find each other: {described(error)}") from error


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def leads() -> bool:
    """Whether this process is the only one, or the one that leads."""
    return jax.process_index() == 0


def meet() -> None:
    """Wait for the other processes, where there are some.

    Errors:
        PartedError where one has ended.
    """
    if not several():
        return
    try:
        _client().wait_at_barrier(f"gps-{next(_meetings)}", _PATIENCE)
        ended = _client().key_value_dir_get(_ENDED)
    except RuntimeError as error:
        raise _lost(error) from error
    for _, why in ended:
        raise PartedError(why)


@contextmanager
def orderly() -> Iterator[None]:
    """Where an error ends this process, the others hear of it as they meet next, and end as well.

    Errors:
        PartedError where a program has failed, most likely because another process has ended in the middle of it.
    """
    status = 1  # what this process ends with; as `gps.cli.main` says
    try:
        yield
        status = 0
    except PartedError:
        status = 2
        raise
    except jax.errors.JaxRuntimeError as error:
        if not several():
            raise
        status = 2
        _part(described(error), _FAREWELL)
        raise PartedError(
            f"a program of process {jax.process_index()} failed, perhaps because another process has ended: "
            f"{described(error)}; gps train --resume goes on from the last checkpoint"
        ) from error
    except Exception as error:
        status = 2 if isinstance(error, UserError | OSError) else 1
        _part(str(error.args[0]) if isinstance(error, UserError) else described(error), _PATIENCE)
        raise
    except BaseException:
        status = 130
        _part("stopped", _FAREWELL)
        raise
    finally:
        if several():
            atexit.register(_leave, status)  # runs before what jax has registered


def welcome(said: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the leader says, to all that it leads; they give nothing."""
    if not several():
        return said or {}
    if said is not None:
        _client().key_value_set(_WELCOME, json.dumps(said))
    meet()
    return json.loads(_client().blocking_key_value_get(_WELCOME, _PATIENCE))


def shared(tree: Any) -> Any:
    """The leader's arrays, on the host of each process; those that follow give their shapes."""
    if not several():
        return tree
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf) if leads() else np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
    # as bytes, which a sum with zeros leaves as they are: of floating-point numbers it makes 0.0 of -0.0
    parts = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
    meet()
    told = multihost_utils.broadcast_one_to_all(np.concatenate(parts))
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return structure.unflatten(
        part.copy().view(array.dtype).reshape(array.shape)
        for part, array in zip(np.split(told, ends), arrays, strict=True)
    )


def in_step(program: Any, *arguments: Any) -> Any:
    """What a jitted program returns, which the processes begin together, each when it has compiled it.

    Errors:
        PartedError where another process has ended.
    """
    if not several():
        return program(*arguments)
    if not program._cache_size():  # the first call
        program.lower(*arguments).compile()
    meet()
    return jax.block_until_ready(program(*arguments))


def _part(why: str, waits: int) -> None:
    """Let the others know why this process ends, as soon as they meet or it has waited so long (ms)."""
    if several():
        with suppress(RuntimeError):
            _client().key_value_set(f"{_ENDED}{jax.process_index()}", f"process {jax.process_index()}: {why}")
            _client().wait_at_barrier(f"gps-{next(_meetings)}", waits)


def _leave(status: int) -> None:
    """The end of this process: those that follow are gone before process 0, without which JAX would abort them."""
    with suppress(RuntimeError):
        if not leads():
            _client().key_value_set(f"{_LEFT}{jax.process_index()}", "")
        for other in range(1, jax.process_count()) if leads() else ():
            _client().blocking_key_value_get(f"{_LEFT}{other}", _FAREWELL)
    if not leads():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _client() -> Any:
    return distributed.global_state.client


def _lost(error: Exception) -> PartedError:
    return PartedError(
        f"process {jax.process_index()} can not go on, as another has ended or is out of reach: gps train --resume "
        f"goes on from the last checkpoint ({described(error)})"
    )
