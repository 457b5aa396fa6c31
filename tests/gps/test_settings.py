"""Settings: what TOML can say, what is rejected and what the user is told."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import dataclass, field

import pytest

from gps.settings import SettingsError, from_dict, nearest, override, read_toml, to_dict, unknown, write_toml


@dataclass(frozen=True)
class Dual:
    rate: float = 0.1
    bounds: tuple[float, float] = (1e-3, 1e3)

    def __post_init__(self):
        if self.rate <= 0:
            raise ValueError(f"rate must be positive, not {self.rate}")


@dataclass(frozen=True)
class Guider:
    name: str = "badmm"
    iterations: int = 10
    widths: tuple[int, ...] = (64, 64)
    dual: Dual = field(default_factory=Dual)
    clip: bool = False


@dataclass(frozen=True)
class Run:
    seed: int
    guider: Guider = field(default_factory=Guider)
    duals: tuple[Dual, ...] = ()


def test_from_dict_builds_nested_settings_and_fills_in_defaults():
    settings = from_dict(Run, {"seed": 3, "guider": {"dual": {"rate": 2}, "widths": [8]}, "duals": [{}]})
    assert settings == Run(3, Guider(dual=Dual(rate=2.0), widths=(8,)), (Dual(),))
    assert type(settings.guider.dual.rate) is float  # the integer 2 was written
    assert type(settings.guider.widths) is tuple


def test_what_is_written_is_what_is_read(tmp_path):
    settings = Run(-7, Guider('quo"te\n[x] = ä', 1, (), Dual(1e-300, (-math.inf, 1e22)), True), (Dual(), Dual(5.0)))
    write_toml(tmp_path / "c.toml", to_dict(settings))
    mapping = read_toml(tmp_path / "c.toml")
    assert mapping == to_dict(settings)
    assert from_dict(Run, mapping) == settings
    assert mapping == tomllib.loads((tmp_path / "c.toml").read_text())
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.toml"]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"sed": 1}, "unknown setting 'sed'; did you mean 'seed'? (known: seed, guider, duals)"),
        (
            {"guider": {"dual": {"RATE": 1}}},
            "unknown setting 'guider.dual.RATE'; did you mean 'rate'? (known: rate, bounds)",
        ),
        (
            {"guider": {"rate": 1}},
            "unknown setting 'guider.rate'; did you mean 'guider.dual.rate'? (known: name, iterations, ",
        ),
        ({"guider": {"zzz": 1}}, "unknown setting 'guider.zzz'; known: name, iterations, widths, dual, clip"),
        ({}, "setting 'seed' is missing and has no default"),
        ({"seed": 1.0}, "setting 'seed' must be an integer, not 1.0 (float)"),
        ({"seed": True}, "setting 'seed' must be an integer, not True (bool)"),
        ({"seed": 1, "guider": {"dual": {"rate": True}}}, "setting 'guider.dual.rate' must be a number, not True"),
        ({"seed": 1, "guider": {"dual": {"rate": "1"}}}, "setting 'guider.dual.rate' must be a number, not '1' (str)"),
        ({"seed": 1, "guider": {"clip": 1}}, "setting 'guider.clip' must be true or false, not 1 (int)"),
        ({"seed": 1, "guider": {"name": 1}}, "setting 'guider.name' must be a text, not 1 (int)"),
        ({"seed": 1, "guider": 5}, "setting 'guider' must be a table, not 5 (int)"),
        ({"seed": 1, "guider": {"widths": 5}}, "setting 'guider.widths' must be a list, not 5 (int)"),
        ({"seed": 1, "guider": {"widths": [1, "a"]}}, "setting 'guider.widths[1]' must be an integer, not 'a' (str)"),
        ({"seed": 1, "guider": {"dual": {"bounds": [1.0]}}}, "'guider.dual.bounds' must be a list of 2, not [1.0]"),
        ({"seed": 1, "guider": {"dual": {"rate": -1}}}, "guider.dual: rate must be positive, not -1.0"),
        ({"seed": 1, "duals": [{}, {"rate": 0}]}, "duals[1]: rate must be positive, not 0.0"),
    ],
)
def test_from_dict_rejects_and_names_the_setting(mapping, message):
    with pytest.raises(SettingsError) as error:
        from_dict(Run, mapping)
    assert message in str(error.value)


def test_where_goes_before_every_name():
    with pytest.raises(SettingsError, match=r"^task: rate must be positive"):
        from_dict(Dual, {"rate": -1}, where="task")
    with pytest.raises(SettingsError, match=r"unknown setting 'task\.x'"):
        from_dict(Dual, {"x": -1}, where="task")


def test_settings_that_no_toml_file_could_hold_are_a_programming_error():
    @dataclass(frozen=True)
    class Odd:
        table: dict = field(default_factory=dict)

    with pytest.raises(TypeError, match=r"setting 'odd\.table' is declared as"):
        from_dict(Odd, {"table": {}}, where="odd")


def test_override_reads_values_as_toml_and_else_as_text():
    before = {"seed": 1, "guider": {"name": "badmm", "widths": [1]}}
    after = override(
        before,
        [
            "seed=2",
            "guider.dual.rate = 0.5",
            "guider.clip=true",
            "guider.widths=[8, 8]",
            "task.name=reacher",
            'task.note="3"',
            "task.equation=a=b",
            "task.day=2024-01-01",
            "task.empty=",
            "task.two=1\nother=2",
            "seed=4",
        ],
    )
    assert after == {
        "seed": 4,
        "guider": {"name": "badmm", "widths": [8, 8], "dual": {"rate": 0.5}, "clip": True},
        "task": {
            "name": "reacher",
            "note": "3",
            "equation": "a=b",
            "day": "2024-01-01",
            "empty": "",
            "two": "1\nother=2",
        },
    }
    assert before == {"seed": 1, "guider": {"name": "badmm", "widths": [1]}}


@pytest.mark.parametrize("assignment", ["seed", "=3", "guider..name=x", ".=1", ""])
def test_override_rejects_what_is_no_assignment(assignment):
    with pytest.raises(SettingsError, match="cannot read the assignment"):
        override({}, [assignment])


def test_override_does_not_reach_into_a_plain_value():
    with pytest.raises(SettingsError, match=r"'guider\.name' is a plain value"):
        override({"guider": {"name": "badmm"}}, ["guider.name.x=1"])


def test_unknown_names_the_nearest_and_all_known():
    error = unknown("guider", "bdmm", ["badmm", "mdgps", "gpo-clip"])
    assert isinstance(error, ValueError)
    assert str(error) == "unknown guider 'bdmm'; did you mean 'badmm'? (known: badmm, mdgps, gpo-clip)"
    assert nearest("GPO_Clip", ["badmm", "gpo-clip"]) == "did you mean 'gpo-clip'? (known: badmm, gpo-clip)"
    assert nearest("xyz", ["badmm", "mdgps"]) == "known: badmm, mdgps"
    assert nearest("xyz", []) == "known: none"


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"seed = 1\nguider = = 2\n", 2), (b"a = 1\nb = [1,\n2\n", 3), (b"a = 1\na = 2", 2), (b'a = 1\nb = "\xff"\n', 2)],
)
def test_read_names_file_and_line_of_a_syntax_error(tmp_path, content, line):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(SettingsError) as error:
        read_toml(tmp_path / "bad.toml")
    assert f"{tmp_path / 'bad.toml'}, line {line}: " in str(error.value)


def test_a_write_that_dies_leaves_the_old_file(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    write_toml(tmp_path / "c.toml", {"a": 1})
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, die)
            with pytest.raises(Killed):
                write_toml(tmp_path / "c.toml", {"a": 2})
        assert read_toml(tmp_path / "c.toml") == {"a": 1}
    with pytest.raises(TypeError):
        write_toml(tmp_path / "c.toml", {"a": None})
    assert read_toml(tmp_path / "c.toml") == {"a": 1}
    write_toml(tmp_path / "c.toml", {"a": 3})
    assert read_toml(tmp_path / "c.toml") == {"a": 3}
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.toml"]
