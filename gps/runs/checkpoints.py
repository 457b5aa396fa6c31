"""Checkpoints that survive a kill in the middle of a save and never return damaged arrays.

A checkpoint is one folder, named by its step:

    checkpoints/00000012/arrays/       the leaves of the state, written by orbax
    checkpoints/00000012/record.json   step, meta, names, shapes and dtypes of the leaves, sha256 of leaves and files

It is written under another name and takes its own by one rename, so a folder named by a step was complete when it
got that name. Later damage (a flipped bit, a lost file) shows in the sums. A damaged checkpoint that is saved again is
kept beside the new one as `damaged-<step>`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from gps.errors import UserError
from gps.runs import record

_TEMPORARY = "tmp-"  # how the names of unfinished and of half-deleted checkpoints begin
_ARRAYS = "arrays"
_Content = TypeVar("_Content")


class CheckpointError(UserError):
    """Checkpoints exist but none can be used, or a state cannot be saved; the message says why."""


@dataclass(frozen=True)
class Restored:
    """The newest checkpoint that is whole."""

    step: int
    state: Any  # the pytree, each leaf of the kind (jax, numpy, plain number) that it has in `like`
    meta: dict[str, Any]
    skipped: list[record.Damage]  # newer checkpoints that are damaged, newest first


class Checkpoints:
    """The checkpoints in one folder, which one process at a time may write.

    Args:
        folder: made by the first save.
        keep: how many whole checkpoints stay; older ones are deleted.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.folder = Path(folder).absolute()
        self.keep = keep

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, oldest first, whole or damaged."""
        if not self.folder.is_dir():
            return []
        return sorted(int(e.name) for e in self.folder.iterdir() if e.is_dir() and re.fullmatch("[0-9]{8,}", e.name))

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Save a pytree of arrays and plain numbers, then delete checkpoints beyond the newest `keep` whole ones.

        Another checkpoint of this step is moved aside; one of this very state is left alone.

        Args:
            step: 0 or more; names the checkpoint.
            state: arrays of any dtype but random keys (store `jax.random.key_data`) and objects.
            meta: whatever JSON can hold.

        Errors:
            CheckpointError for a leaf that is no array; TypeError for a meta that is not JSON; OSError when the
            disk is full. None of them touches the checkpoints that are there.
        """
        arrays = {name: _on_host(name, leaf) for name, leaf in _named(state).items()}
        content = record.content_of(step, arrays, meta)
        place = self._place(step)
        if place.exists() and record.verify(place) == content:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for rest in self.folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(rest)  # here and not when a folder is opened: a reader must not disturb a running save
        draft = self.folder / f"{_TEMPORARY}saving-{place.name}"
        draft.mkdir()
        if stored := _stored(arrays):
            with _orbax() as orbax:
                orbax.save(draft / _ARRAYS, stored)
        record.write(draft, content)
        for entry in [*draft.rglob("*"), draft]:
            _sync(entry)  # before the rename, which could otherwise reach the disk first
        if place.exists():
            self._set_aside(place)
        draft.rename(place)
        _sync(self.folder)
        self._prune()

    def restore(self, like: Any) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is no checkpoint at all.

        Args:
            like: a pytree with the structure, shapes and dtypes of the saved state. Its values are not read;
                a leaf may be a `jax.ShapeDtypeStruct`.

        Errors:
            CheckpointError when every checkpoint is damaged (all damages in the message), and when a whole one
            holds a state of another structure than `like`: an older one would hold the same.
        """
        newest, skipped = self._newest(_load)
        if newest is None:
            return None
        content, arrays = newest
        _check_alike(self._place(content["step"]), content["leaves"], like)
        state = jax.tree.unflatten(jax.tree.structure(like), arrays.values())
        return Restored(content["step"], jax.tree.map(_as_in, like, state), content["meta"], skipped)

    def newest(self, like: Any | None = None) -> int | None:
        """The step that `restore` would return, by its sums alone: no array is read, and orbax is not needed.

        Arguments and errors as in `restore`; without `like`, the structure of the state is not looked at.
        """
        content, _ = self._newest(record.verify)
        if content is None:
            return None
        if like is not None:
            _check_alike(self._place(content["step"]), content["leaves"], like)
        return content["step"]

    def _newest(self, read: Callable[[Path], _Content | record.Damage]) -> tuple[_Content | None, list[record.Damage]]:
        """What `read` finds in the newest checkpoint that it does not call damaged, and those that it does."""
        skipped: list[record.Damage] = []
        for step in reversed(self.steps()):
            content = read(self._place(step))
            if not isinstance(content, record.Damage):
                return content, skipped
            skipped.append(content)
        if skipped:
            raise CheckpointError("no checkpoint is whole:\n" + "\n".join(f"  {d.path}: {d.reason}" for d in skipped))
        return None, []

    def _place(self, step: int) -> Path:
        if step < 0:
            raise ValueError(f"a step is 0 or more, not {step}")
        return self.folder / f"{step:08d}"

    def _set_aside(self, place: Path) -> None:
        """Rename what stands in the place of a checkpoint, so that nothing is lost by saving the step again."""
        kind = "damaged" if isinstance(record.verify(place), record.Damage) else "replaced"
        name, count = f"{kind}-{int(place.name)}", 1
        while (self.folder / name).exists():
            count += 1
            name = f"{kind}-{int(place.name)}-{count}"
        place.rename(self.folder / name)

    def _prune(self) -> None:
        """Delete checkpoints older than the newest `keep` that are whole on the disk at this moment."""
        whole = 0
        for step in reversed(self.steps()):
            if whole == self.keep:
                # First out of the way by one rename: a kill must not leave half of it under its name.
                rest = self.folder / f"{_TEMPORARY}deleting-{step}"
                self._place(step).rename(rest)
                shutil.rmtree(rest)
            elif not isinstance(record.verify(self._place(step)), record.Damage):
                whole += 1


def _named(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree by name, in the order of the tree."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _on_host(name: str, leaf: Any) -> np.ndarray:
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        raise CheckpointError(f"leaf '{name}' is a typed random key; save jax.random.key_data of it")
    array = np.asarray(jax.device_get(leaf))
    if array.dtype.kind in "OSUMm":
        raise CheckpointError(f"leaf '{name}' is no array of numbers but a {type(leaf).__name__}")
    return array


def _check_alike(place: Path, saved: dict[str, str], like: Any) -> None:
    wanted = {name: record.kind_of(leaf) for name, leaf in _named(like).items()}
    if list(saved.items()) == list(wanted.items()):
        return
    differing = [name for name in {**saved, **wanted} if saved.get(name) != wanted.get(name)]
    lines = [f"  '{n}': saved {saved.get(n, 'nothing')}, wanted {wanted.get(n, 'nothing')}" for n in differing]
    text = "\n".join(lines) or "  the same leaves in another order"
    raise CheckpointError(f"{place} holds a state of another structure (other settings?):\n{text}")


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """A checkpointer of orbax whose log lines stay off the terminal: orbax raises what matters in them."""
    import orbax.checkpoint as ocp  # 3 s, which most commands need not wait for

    logger = logging.getLogger("absl")
    was, logger.disabled = logger.disabled, True
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            yield checkpointer
    finally:
        logger.disabled = was


def _stored(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What goes through orbax, which refuses arrays of no elements."""
    return {name: array for name, array in arrays.items() if array.size}


def _load(place: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | record.Damage:
    """Content and arrays by name; the sum over them guards against what the sums over the files cannot see."""
    content = record.verify(place)
    if isinstance(content, record.Damage):
        return content
    arrays = {name: record.empty(kind) for name, kind in content["leaves"].items()}
    try:
        if stored := _stored(arrays):
            with _orbax() as orbax:
                arrays |= orbax.restore(place / _ARRAYS, item=stored)
    except Exception as error:  # whatever orbax raises, an older checkpoint may still be readable
        return record.Damage(place / _ARRAYS, f"orbax cannot read it: {str(error)[:200]}")
    if record.sum_of_arrays(arrays) != content["arrays"]:
        return record.Damage(place / _ARRAYS, "orbax returned other arrays than were saved")
    return content, arrays


def _as_in(leaf: Any, array: np.ndarray) -> Any:
    """The array as the kind of leaf that `like` has in this place."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return jax.device_put(array, leaf.sharding)
    if isinstance(leaf, np.ndarray):
        return array
    return array[()] if isinstance(leaf, np.generic) else array.item()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
