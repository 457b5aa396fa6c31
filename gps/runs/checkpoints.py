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
from typing import Any

import jax
import numpy as np

from gps.errors import UserError
from gps.files import FileError, synced, told
from gps.runs import record

_TEMPORARY = "tmp-"  # how the names of unfinished and of half-deleted checkpoints begin
_ARRAYS = "arrays"


class CheckpointError(UserError):
    """Checkpoints exist but none can be used, or a state cannot be saved; the message says why."""


@dataclass(frozen=True)
class Restored:
    """The newest checkpoint that is whole, or the one that was asked for."""

    step: int
    state: Any  # the pytree, each leaf of the kind (jax, numpy, number) that it has in `like`; None where not read
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
        draft = self.folder / f"{_TEMPORARY}saving-{place.name}"
        with told(draft, "written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.sweep()
            try:
                self._write(draft, arrays, content)
            except Exception:
                shutil.rmtree(draft, ignore_errors=True)  # it may be what has filled the disk
                raise
            if place.exists():
                self._set_aside(place)
            draft.rename(place)
            synced(self.folder)
            self._prune()

    def sweep(self) -> None:
        """Delete what a kill has left of a save or a deletion; called by who writes: readers disturb nobody."""
        for rest in self.folder.glob(f"{_TEMPORARY}*"):
            with told(rest, "deleted"):
                shutil.rmtree(rest)

    def _write(self, draft: Path, arrays: dict[str, np.ndarray], content: dict[str, Any]) -> None:
        draft.mkdir()
        if stored := _stored(arrays):
            try:
                with _orbax() as orbax:
                    orbax.save(draft / _ARRAYS, stored)
            except Exception as error:  # of any type: a full disk is a ValueError of a page
                reason = "the disk is full" if "No space left" in str(error) else str(error).split("\n")[0][:200]
                raise FileError(
                    f"{draft} can not be written: {reason}; make room for it: what was saved before is whole"
                ) from error
        record.write(draft, content)
        for entry in [*draft.rglob("*"), draft]:
            synced(entry)  # before the rename, which could otherwise reach the disk first

    def restore(self, like: Any, step: int | None = None) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is no checkpoint at all.

        Args:
            like: a pytree with the structure, shapes and dtypes of the saved state. Its values are not read;
                a leaf may be a `jax.ShapeDtypeStruct`.
            step: of the checkpoint to read, in place of the newest one.

        Errors:
            CheckpointError when every checkpoint is damaged (all damages in the message), when there is none of the
            step, and when a whole one holds a state of another structure than `like`: an older one would hold the same.
        """
        return self._newest(lambda place: _load(place, like), step)

    def newest(self, like: Any | None = None) -> Restored | None:
        """What `restore` would return but for its state, by the sums alone: no array is read, orbax is not needed.

        Arguments and errors as in `restore`; without `like`, the structure of the state is not looked at.
        """
        return self._newest(lambda place: _verified(place, like), None)

    def _newest(
        self, read: Callable[[Path], tuple[dict[str, Any], Any] | record.Damage], step: int | None
    ) -> Restored | None:
        """What `read` returns of the newest checkpoint that it does not call damaged, and those that it does."""
        steps = self.steps()
        if step is not None and step not in steps:
            there = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(f"{self.folder} has no checkpoint of step {step}: there are {there}")
        skipped: list[record.Damage] = []
        for one in reversed(steps) if step is None else (step,):
            found = read(self._place(one))
            if not isinstance(found, record.Damage):
                content, state = found
                return Restored(one, state, content["meta"], skipped)
            if not self._place(one).exists() and self.steps()[-1:] > steps[-1:]:
                return self._newest(read, step)  # a run that is trained meanwhile has newer ones, and deleted this one
            skipped.append(found)
        if skipped:
            raise CheckpointError("no checkpoint is whole:", *(f"  {damage}" for damage in skipped))
        return None

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
    lines = lines or ["  the same leaves in another order"]
    raise CheckpointError(f"{place} holds a state of another structure (other settings?):", *lines)


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """A checkpointer of orbax whose log lines stay off the terminal: orbax raises what matters in them."""
    import orbax.checkpoint as ocp  # 3 s, which most commands need not wait for

    logger = logging.getLogger("absl")
    was, logger.disabled = logger.disabled, True
    try:
        # of several processes of a run only this one is here
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="gps"
        )
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield checkpointer
    finally:
        logger.disabled = was


def _stored(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What goes through orbax, which refuses arrays of no elements."""
    return {name: array for name, array in arrays.items() if array.size}


def _verified(place: Path, like: Any | None) -> tuple[dict[str, Any], None] | record.Damage:
    """The content of a checkpoint of states like this one, by the sums over its files."""
    content = record.verify(place)
    if isinstance(content, record.Damage):
        return content
    if like is not None:
        _check_alike(place, content["leaves"], like)
    return content, None


def _load(place: Path, like: Any) -> tuple[dict[str, Any], Any] | record.Damage:
    """Content and state; the sum over the arrays guards against what the sums over the files cannot see.

    Nothing is made of the sizes that the checkpoint names before they are those of `like`.
    """
    verified = _verified(place, like)
    if isinstance(verified, record.Damage):
        return verified
    content, _ = verified
    arrays = {name: record.empty(kind) for name, kind in content["leaves"].items()}
    try:
        if stored := _stored(arrays):
            with _orbax() as orbax:
                _check_shapes(orbax.metadata(place / _ARRAYS), stored)
                arrays |= orbax.restore(place / _ARRAYS, item=stored)
    except Exception as error:  # whatever orbax raises, an older checkpoint may still be readable
        return record.Damage(place / _ARRAYS, f"orbax cannot read it: {str(error)[:200]}")
    if record.sum_of_arrays(arrays) != content["arrays"]:
        return record.Damage(place / _ARRAYS, "orbax returned other arrays than were saved")
    state = jax.tree.unflatten(jax.tree.structure(like), arrays.values())
    return content, jax.tree.map(_as_in, like, state)


def _check_shapes(metadata: Any, arrays: dict[str, np.ndarray]) -> None:
    """Raise ValueError where orbax would make arrays of other sizes than these."""
    stored = {name: tuple(about.shape) for name, about in metadata.item_metadata.tree.items()}
    if stored != {name: array.shape for name, array in arrays.items()}:
        raise ValueError("its arrays have other shapes than its record says")


def _as_in(leaf: Any, array: np.ndarray) -> Any:
    """The array as the kind of leaf that `like` has in this place."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return jax.device_put(array, leaf.sharding)
    if isinstance(leaf, np.ndarray):
        return array
    return array[()] if isinstance(leaf, np.generic) else array.item()
