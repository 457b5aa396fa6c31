"""Damage to the files of a run, and what a stranger may have put into its folder; each with the names of an error."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.harness import Trial

Names = tuple[str, ...]
LARGE = (
    "[" * 3000 + "]" * 3000,
    '{"iteration": ' + "1" * 5000 + "}",
    "a = " + "[" * 3000 + "]" * 3000,
    "a = " + "1" * 5000,
    "\x1b]0;mine\x07\x1b[2J",
    '[run]\ntask = "\\u001b[2Jreacher"\nguider = "x"\nseed = 0\niterations = 3\n',
    '{"content": {}, "files": {}, "sha256": ""}',
    "null",
)


def _files(trial: Trial) -> list[Path]:
    """Of settings, metrics, summary, figures and checkpoints."""
    return sorted(path for path in trial.run.rglob("*") if path.is_file() and path.name != ".lock")


def _names(file: Path) -> Names:
    """By which a file of a run may be called; those of a checkpoint also by the checkpoint."""
    step = next((part for part in file.parts if part.isdigit()), None)
    return (file.name, *(() if step is None else (step, "checkpoint")))


def truncated(trial: Trial) -> Names:
    """A file that ends early."""
    file = trial.rng.choice([file for file in _files(trial) if file.stat().st_size])
    os.truncate(file, trial.rng.randrange(file.stat().st_size))
    return _names(file)


def flipped(trial: Trial) -> Names:
    """One bit of a file."""
    file = trial.rng.choice([file for file in _files(trial) if file.stat().st_size])
    data = bytearray(file.read_bytes())
    data[trial.rng.randrange(len(data))] ^= 1 << trial.rng.randrange(8)
    file.write_bytes(data)
    return _names(file)


def emptied(trial: Trial) -> Names:
    """A file without its bytes."""
    file = trial.rng.choice(_files(trial))
    file.write_bytes(b"")
    return _names(file)


def deleted(trial: Trial) -> Names:
    """A file, or a folder with all that it holds."""
    path = trial.rng.choice([path for path in sorted(trial.run.rglob("*")) if path.name != ".lock"])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return (*_names(path), "holds no checkpoint")


def replaced(trial: Trial) -> Names:
    """A file of another run, of another seed, in the place of this one's."""
    file = trial.rng.choice(_files(trial))
    other = trial.path / "other" / file.relative_to(trial.run)
    others = [*(path for path in (other.parent.rglob("*") if other.parent.is_dir() else ()) if path.is_file())]
    other = other if other.exists() else trial.rng.choice(others) if others else trial.path / "other" / "config.toml"
    shutil.copyfile(other, file)
    # where a whole checkpoint is of another run, it is the settings or the rows that do not fit it
    return (*_names(file), "config.toml", "metrics.jsonl")


def exchanged(trial: Trial) -> Names:
    """A whole checkpoint of another run, or an older one under the name of the newest."""
    steps = sorted((trial.run / "checkpoints").iterdir())
    place = trial.rng.choice(steps)
    source = trial.rng.choice([trial.path / "other" / "checkpoints" / place.name, steps[0]])
    if source != place:
        shutil.rmtree(place)
        shutil.copytree(source, place)
    return (place.name, "config.toml", "metrics.jsonl")


def garbage(trial: Trial) -> Names:
    """Text that is deep, long or meant for a terminal in the place of a text; or bytes in the place of anything."""
    file = trial.rng.choice(_files(trial))
    text = trial.rng.choice([*LARGE, None])
    file.write_bytes(trial.rng.randbytes(trial.rng.randrange(1, 4000)) if text is None else text.encode())
    return _names(file)


def rows_mixed(trial: Trial) -> Names:
    """Rows of the metrics that are doubled, dropped, exchanged, or have another number."""
    file = trial.run / "metrics.jsonl"
    rows = file.read_text().splitlines()
    i, j = trial.rng.randrange(len(rows)), trial.rng.randrange(len(rows))
    how = trial.rng.randrange(4)
    if how == 0:
        rows[i], rows[j] = rows[j], rows[i]
    elif how == 1:
        rows.insert(i, rows[j])
    elif how == 2:
        del rows[i]
    else:
        row = json.loads(rows[i])
        name = trial.rng.choice(sorted(row))
        row[name] = trial.rng.choice([None, "text", 1e300, -1, [], {}])
        rows[i] = json.dumps(row)
    file.write_text("".join(f"{row}\n" for row in rows))
    return ("metrics.jsonl", "has no checkpoint")


def settings_edited(trial: Trial) -> Names:
    """Another value in the settings, with and without the sum that they end with."""
    file = trial.run / "config.toml"
    text, _, _ = file.read_text().rpartition("# sha256 of the text above: ")
    lines = text.splitlines()
    numbers = [i for i, line in enumerate(lines) if line.split(" = ")[-1].strip('"').replace(".", "").isdigit()]
    i = trial.rng.choice(numbers)
    name, _, value = lines[i].partition(" = ")
    lines[i] = f"{name} = {float(value) + 1 if '.' in value else int(value) + trial.rng.choice([-1, 1])}"
    new = "\n".join(lines) + "\n"
    ending = hashlib.sha256(new.encode()).hexdigest() if trial.rng.random() < 0.5 and name != "iterations" else "0" * 64
    file.write_text(f"{new}# sha256 of the text above: {ending}\n")
    return ("config.toml", name)


def lock_replaced(trial: Trial) -> Names:
    """Something else in the place of the lock."""
    lock = trial.run / ".lock"
    lock.unlink(missing_ok=True)
    trial.rng.choice([lock.mkdir, lambda: os.mkfifo(lock), lambda: lock.symlink_to("../outside/victim.txt")])()
    return (".lock",)


def linked(trial: Trial) -> Names:
    """A link, to a file or a folder outside, or to nowhere, in the place of anything or beside it."""
    places = [*sorted(trial.run.rglob("*")), *(trial.run / name for name in LINKS)]
    place = trial.rng.choice(places)
    target = trial.rng.choice(["outside/victim.txt", "outside/folder", "outside/new.txt", "other/config.toml"])
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(os.path.relpath(trial.path / target, place.parent))
    return (place.name,)


LINKS = (
    *(".metrics.jsonl.tmp", ".summary.json.tmp", ".config.toml.tmp", "figures/.drawn.txt.tmp", "figures/new.png"),
    *("checkpoints/00000009", "checkpoints/tmp-saving-00000004", "checkpoints/tmp-deleting-1", "notes"),
)


def piped(trial: Trial) -> Names:
    """A pipe that nobody writes to."""
    place = trial.rng.choice(_files(trial))
    place.unlink()
    os.mkfifo(place)
    return (place.name,)


def forged(trial: Trial) -> Names:
    """A record whose sums are right and whose content is not what a run can have written."""
    file = trial.rng.choice(sorted(trial.run.glob("checkpoints/*/record.json")))
    record = json.loads(file.read_text())
    content, files = record["content"], record["files"]
    leaf = trial.rng.choice(sorted(content["leaves"]))
    forgeries: list[Callable[[], Any]] = [
        *(
            lambda name=name: files.update({name: "0" * 64})
            for name in ("/dev/zero", "../../../outside/victim.txt", "")
        ),
        lambda: files.clear() or files.update({"/etc/passwd": "0" * 64}),
        lambda: files.update({"arrays": "0" * 64}),
        lambda: content["leaves"].update({leaf: "float32[10000000000000]"}),
        lambda: content["leaves"].update({leaf: "object[3]"}),
        lambda: content["leaves"].update({leaf: 7}),
        lambda: content.update(leaves=[]),
        lambda: content.update(arrays=None),
        lambda: content.update(step="4"),
        lambda: content.update(meta=trial.rng.choice([None, [], "x", {}, {"seconds": 1.0}])),
        lambda: content["meta"].update(seconds=trial.rng.choice(["x", None, []])),
        lambda: content["meta"].update(best_iteration=trial.rng.choice([99, -1, "x", 1.5])),
        lambda: content["meta"].update(metrics=trial.rng.choice([{"crc32": ""}, {"sha256": 3, "crc32": 4}, "x", {}])),
        lambda: content["meta"].update(settings={"run": {"seed": 7}}),
        lambda: content["leaves"].pop(leaf),
    ]
    trial.rng.choice(forgeries)()
    _write_record(file, content, files)
    return (file.parent.name, str(int(file.parent.name)), "metrics.jsonl", "config.toml")


def without_sums(run: Path) -> None:
    """Make of a run what an earlier version would have made."""
    config = run / "config.toml"
    config.write_text(config.read_text().rpartition("# sha256 of the text above: ")[0])
    for file in run.glob("checkpoints/*/record.json"):
        record = json.loads(file.read_text())
        del record["content"]["meta"]["settings"], record["content"]["meta"]["metrics"]
        _write_record(file, record["content"], record["files"])


def _write_record(file: Path, content: dict[str, Any], files: dict[str, str]) -> None:
    """With the right sum."""
    total = hashlib.sha256(json.dumps([content, files], sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps({"sha256": total, "content": content, "files": files}))


CODE = "import os\nfrom pathlib import Path\n(Path(__file__).parent / 'executed').write_text('')\nENTRY = None\n"


def code_named(trial: Trial) -> Names:
    """Settings that name code, which lies in the current folder and in the run."""
    for place in (trial.path, trial.run):
        (place / "hostile_module.py").write_text(CODE)
    file = trial.run / "config.toml"
    name = trial.rng.choice(["task", "guider"])
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    lines = [f'{name} = "hostile_module:ENTRY"' if line.startswith(f"{name} = ") else line for line in lines]
    file.write_text("\n".join(lines) + "\n")
    return ("--trust", f"run.{name}")


DAMAGES: tuple[Callable[[Trial], Names], ...] = (
    *(truncated, flipped, emptied, deleted, replaced, exchanged, garbage, rows_mixed, settings_edited),
    *(lock_replaced, linked, piped, forged, code_named),
)


def damaged(trial: Trial, damage: Callable[[Trial], Names]) -> str:
    """One trial: a damage, and all commands."""
    names = damage(trial)
    before = trial.outside()
    answers = trial.readers(names)
    answers.add(trial.resumed(names))
    if trial.outside() != before or (trial.path / "executed").exists():
        raise trial.violation("something outside of the run has changed")
    return "error" if "error" in answers else "same"
