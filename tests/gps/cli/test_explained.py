"""Settings with what the source says of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from gps.cli.explained import comments, explained, lines
from gps.experiments.experiment import Experiment
from gps.experiments.lookup import GUIDERS, TASKS


@dataclass(frozen=True)
class Inner:
    width: float = 0.5  # m, of "#" and all


@dataclass(frozen=True)
class Outer:
    """Its words: not: fields."""

    first: int = 3
    # Above it, in two
    # lines:
    second: tuple[int, ...] = (1, 2)  # and beside it
    # of no field

    inner: Inner = field(default_factory=Inner)
    made: int = field(default=0, init=False)  # no setting

    def __post_init__(self):
        local: int = 0  # no field
        del local


@dataclass(frozen=True)
class Heir(Outer):
    third: str = ""  # its own


def test_comments_above_and_beside_a_field_explain_it():
    assert list(explained(Outer(), "a.")) == [
        ("a.first", 3, ""),
        ("a.second", [1, 2], "Above it, in two lines: and beside it"),
        ("a.inner.width", 0.5, 'm, of "#" and all'),
    ]
    assert comments(Heir)["third"] == "its own"
    assert comments(Heir)["second"] == comments(Outer)["second"]


def test_lines_are_columns_and_long_names_have_a_line_of_their_own():
    assert list(lines(Outer(), "a."))[:2] == [
        "  a.first = 3",
        f"  {'a.second = [1, 2]':44}Above it, in two lines: and beside it",
    ]
    long = list(lines(Inner(), "x" * 60 + "."))
    assert long == [f"  {'x' * 60}.width = 0.5", f'{" " * 46}m, of "#" and all']


def test_a_class_without_source_has_no_comments():
    made = type("Made", (), {"__annotations__": {"a": int}, "__module__": "nowhere"})
    assert comments(made) == {}


@pytest.mark.parametrize("guider", ["badmm", "gpo-clip"])
def test_the_help_of_train_has_every_setting_of_the_task_and_the_guider(said, capsys, guider):
    with pytest.raises(SystemExit) as end:
        said("train", "reacher", "--guider", guider, "--set", "run.seed=5", "--help")
    assert end.value.code in (0, None)
    text = capsys.readouterr().out
    resolved = Experiment.resolve({"run": {"task": "reacher", "guider": guider, "seed": 5}})
    told = [line.split(" = ")[0].strip() for line in text.split("for --set:\n")[1].splitlines() if line[2:3].strip()]
    assert told == [
        name for table in ("run", "task", "guider") for name, *_ in explained(getattr(resolved, table), f"{table}.")
    ]
    assert "\n  run.seed = 5 " in text


def test_the_help_of_train_knows_what_is_wrong_before_it(said):
    assert said("train", "reacher", "--set", "guider.foo=1", "--help")[0] == 2


@pytest.mark.parametrize("entries", [TASKS, GUIDERS], ids=["tasks", "guiders"])
def test_every_setting_of_the_catalogue_is_explained(entries):
    built = {name: entry for name, entry in entries.items() if not name.startswith(("brax-", "playground-"))}
    said = {
        f"{name}: {setting}": text
        for name, entry in built.items()
        for setting, _, text in explained(entry.load().settings, "")
    }
    assert [setting for setting, text in said.items() if not text] == []
