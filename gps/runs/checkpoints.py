"""Checkpoints that survive a kill in the middle of a save and never return damaged arrays.

A checkpoint is one folder, named by its step:

    checkpoints/00000012/arrays/       the leaves of the state, written by orbax
    checkpoints/00000012/record.json   step, meta, names, shapes and dtypes of the leaves, sha256 of leaves and files

It is written under another name and takes its own by one rename, so a folder named by a step was complete when it
got that name. What happens to it later (a flipped bit, a lost file) shows in the sums. `damaged-<step>` is what was
found in the place of a checkpoint that had to be saved again; it is kept for whoever wants to know what happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from gps.errors import UserError

_TEMPORARY = "tmp-"  # how the names of unfinished and of half-deleted checkpoints begin
_RECORD = "record.json"
_ARRAYS = "arrays"
_Found = TypeVar("_Found")


class CheckpointError(UserError):
    """Checkpoints exist but none can be used, or a state cannot be saved; the message says why."""


class Damage(NamedTuple):
    """A checkpoint that was passed over: the file or folder that is damaged, and in what way."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Restored:
    """The newest checkpoint that is whole."""

    step: int
    state: Any  # the pytree, each leaf of the kind (jax, numpy, plain number) that it has in `like`
    meta: dict[str, Any]
    skipped: list[Damage]  # newer checkpoints that are damaged, newest first


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

        What is found in the place of this step is moved aside, unless it is this very state, which is left alone.

        Args:
            step: 0 or more; names the checkpoint.
            state: arrays of any dtype but random keys (store `jax.random.key_data`) and objects.
            meta: whatever JSON can hold.

        Errors:
            CheckpointError for a leaf that is no array; TypeError for a meta that is not JSON; OSError when the
            disk is full. None of them touches the checkpoints that are there.
        """
        arrays = {name: _on_host(name, leaf) for name, leaf in _named(state).items()}
        content = _content(step, arrays, meta)
        place = self._place(step)
        if place.exists() and _verify(place) == content:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for rest in self.folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(rest)  # here and not when a folder is opened: a reader must not disturb a running save
        draft = self.folder / f"{_TEMPORARY}saving-{place.name}"
        draft.mkdir()
        if stored := _stored(arrays):
            with _orbax() as orbax:
                orbax.save(draft / _ARRAYS, stored)
        written = sorted(path for path in draft.rglob("*") if path.is_file())
        files = {str(path.relative_to(draft)): _sum_of_file(path) for path in written}
        text = json.dumps({"sha256": _sum_of_json([content, files]), "content": content, "files": files}, indent=1)
        (draft / _RECORD).write_text(text)
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
        found, skipped = self._newest(_load)
        if found is None:
            return None
        content, arrays = found
        _check_alike(self._place(content["step"]), content["leaves"], like)
        state = jax.tree.unflatten(jax.tree.structure(like), arrays.values())
        return Restored(content["step"], jax.tree.map(_as_in, like, state), content["meta"], skipped)

    def newest(self, like: Any | None = None) -> int | None:
        """The step that `restore` would return, by its sums alone: no array is read, and orbax is not needed.

        Arguments and errors as in `restore`; without `like`, the structure of the state is not looked at.
        """
        content, _ = self._newest(_verify)
        if content is None:
            return None
        if like is not None:
            _check_alike(self._place(content["step"]), content["leaves"], like)
        return content["step"]

    def _newest(self, read: Callable[[Path], _Found | Damage]) -> tuple[_Found | None, list[Damage]]:
        """What `read` finds in the newest checkpoint that it does not call damaged, and those that it does."""
        skipped: list[Damage] = []
        for step in reversed(self.steps()):
            found = read(self._place(step))
            if not isinstance(found, Damage):
                return found, skipped
            skipped.append(found)
        if skipped:
            raise CheckpointError("no checkpoint is whole:\n" + "\n".join(f"  {d.path}: {d.reason}" for d in skipped))
        return None, []

    def _place(self, step: int) -> Path:
        if step < 0:
            raise ValueError(f"a step is 0 or more, not {step}")
        return self.folder / f"{step:08d}"

    def _set_aside(self, place: Path) -> None:
        """Rename what stands in the place of a checkpoint, so that nothing is lost by saving the step again."""
        kind = "damaged" if isinstance(_verify(place), Damage) else "replaced"
        name, count = f"{kind}-{int(place.name)}", 1
        while (self.folder / name).exists():
            count += 1
            name = f"{kind}-{int(place.name)}-{count}"
        place.rename(self.folder / name)

    def _prune(self) -> None:
        """Delete what is older than the newest `keep` checkpoints that are whole on the disk at this moment."""
        whole = 0
        for step in reversed(self.steps()):
            if whole == self.keep:
                # First out of the way by one rename: a kill must not leave half of it under its name.
                rest = self.folder / f"{_TEMPORARY}deleting-{step}"
                self._place(step).rename(rest)
                shutil.rmtree(rest)
            elif not isinstance(_verify(self._place(step)), Damage):
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


def _kind(leaf: Any) -> str:
    """Dtype and shape, such as "float32[3,4]"."""
    known = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return f"{known.dtype}[{','.join(map(str, known.shape))}]"


def _empty(kind: str) -> np.ndarray:
    """An uninitialised array of such a kind."""
    dtype, _, shape = kind.rstrip("]").partition("[")
    return np.empty([int(n) for n in shape.split(",") if n], jax.numpy.dtype(dtype))


def _content(step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds, in words that JSON gives back unchanged."""
    leaves = {name: _kind(array) for name, array in arrays.items()}
    content = {"step": step, "leaves": leaves, "arrays": _sum_of_arrays(arrays), "meta": meta}
    return json.loads(json.dumps(content))  # tuples become lists and keys become texts, here as on the disk


def _check_alike(place: Path, saved: dict[str, str], like: Any) -> None:
    wanted = {name: _kind(leaf) for name, leaf in _named(like).items()}
    if list(saved.items()) == list(wanted.items()):
        return
    differing = [name for name in {**saved, **wanted} if saved.get(name) != wanted.get(name)]
    lines = [f"  '{n}': saved {saved.get(n, 'nothing')}, wanted {wanted.get(n, 'nothing')}" for n in differing]
    text = "\n".join(lines) or "  the same leaves in another order"
    raise CheckpointError(f"{place} holds a state of another structure (other settings?):\n{text}")


def _verify(place: Path) -> dict[str, Any] | Damage:
    """The content that the record of a checkpoint lists, or the first file that is not as it was saved.

    Files are summed before orbax sees them: from damaged ones it prints traces of its own threads, and some damage
    it does not notice.
    """
    file = place / _RECORD
    try:
        record = json.loads(file.read_bytes())
        content, files = record["content"], record["files"]
        if record["sha256"] != _sum_of_json([content, files]) or content["step"] != int(place.name):
            raise ValueError
        for name, expected in files.items():
            file = place / name
            if _sum_of_file(file) != expected:
                raise ValueError
    except FileNotFoundError:
        return Damage(file, "is missing")
    except OSError as error:
        return Damage(file, f"cannot be read: {error.strerror or error}")
    except (ValueError, LookupError, TypeError):
        return Damage(file, "its bytes have changed since it was saved")
    return content


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """A checkpointer of orbax whose log lines stay off the terminal: what matters in them is raised as well."""
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


def _load(place: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | Damage:
    """Content and arrays by name; the sum over them guards against what the sums over the files cannot see."""
    content = _verify(place)
    if isinstance(content, Damage):
        return content
    arrays = {name: _empty(kind) for name, kind in content["leaves"].items()}
    try:
        if stored := _stored(arrays):
            with _orbax() as orbax:
                arrays |= orbax.restore(place / _ARRAYS, item=stored)
    except Exception as error:  # whatever orbax raises, an older checkpoint may still be readable
        return Damage(place / _ARRAYS, f"orbax cannot read it: {str(error)[:200]}")
    if _sum_of_arrays(arrays) != content["arrays"]:
        return Damage(place / _ARRAYS, "orbax returned other arrays than were saved")
    return content, arrays


def _as_in(leaf: Any, array: np.ndarray) -> Any:
    """The array as the kind of leaf that `like` has in this place."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return jax.device_put(array, leaf.sharding)
    if isinstance(leaf, np.ndarray):
        return array
    return array[()] if isinstance(leaf, np.generic) else array.item()


def _sum_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sum_of_arrays(arrays: dict[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _sum_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
