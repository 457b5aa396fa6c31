"""A short part of the campaign, always the same trials: `campaign.py` runs more of them.

Besides, settings and command lines that hypothesis thinks of, and makes as plain as they can be where one fails.
"""

from __future__ import annotations

import os
import random
import shutil

import pytest
from faults.campaign import campaign, table
from faults.damage import damaged, without_sums
from faults.harness import READERS, Violation, prepare
from faults.inputs import PLACES, VALUES, WORDS, set_one, settings_of, taken_or_named
from hypothesis import given, settings
from hypothesis import strategies as st

SETTINGS = st.sampled_from(PLACES).flatmap(
    lambda place: st.tuples(st.just(place), st.sampled_from(settings_of(*place)))
)
NUMBERS = st.integers().map(str) | st.floats().map(str) | st.lists(st.integers() | st.floats(), max_size=3).map(str)
fuzz = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def whole(patch, tmp_path_factory):
    patch.chdir(tmp_path_factory.mktemp("here"))  # to return to the present one in the end
    return prepare(tmp_path_factory.mktemp("runs"), patch)


@pytest.fixture(scope="module")
def trial(whole, tmp_path_factory):
    """One for all inputs, as none of them may change anything."""
    return whole.trial(random.Random(0), tmp_path_factory.mktemp("inputs") / "trial")


@pytest.mark.slow
def test_no_promise_is_broken(whole, tmp_path):
    violations: list[str] = []
    counts = campaign(whole, tmp_path, seed=0, trials=88, kills=2, note=violations.append)
    assert violations == []
    assert all(count.total() >= 2 for count in counts.values())
    assert table(counts).endswith(" | 0 |")


def test_an_older_checkpoint_is_never_taken_silently(whole, tmp_path):
    """The newest of four is lost: its evaluation is refused, or that of the third if it is asked for, and said so."""
    trial = whole.trial(random.Random(0), tmp_path / "trial")
    (trial.run / "checkpoints" / "00000004" / "record.json").unlink()
    answer = trial.command(*READERS["evaluate"])
    assert (answer.status, answer.out) == (2, "")
    assert "00000004/record.json: is missing: the newest that is whole is of iteration 3; take it by" in answer.line
    for asked in (["--step", "3"], ["--allow-older"]):
        answer = trial.command(*READERS["evaluate"], *asked)
        assert (answer.status, answer.out.split("\n")[0]) == (0, "the learner after iteration 3 of 4")
    assert "checkpoint passed over" in answer.err
    answer = trial.command(*READERS["evaluate"], "--step", "1")
    assert answer.status == 2
    assert answer.line.endswith("has no checkpoint of step 1: there are 2, 3, 4")


def test_the_harness_sees_a_promise_that_is_broken(whole, tmp_path, monkeypatch):
    """Without the check of checkpoints that are lost, the campaign is not content."""
    monkeypatch.setattr("gps.runs.integrity.check_newest", lambda *_: None)
    trial = whole.trial(random.Random(0), tmp_path / "trial")

    def lost(trial):
        (trial.run / "checkpoints" / "00000004" / "record.json").unlink()
        return ("00000004",)

    with pytest.raises(Violation, match="it went on with something else, and said nothing"):
        damaged(trial, lost)


def test_a_folder_without_sums_opens_with_a_note(whole, tmp_path):
    """As an earlier version made it."""
    trial = whole.trial(random.Random(0), tmp_path / "trial")
    without_sums(trial.run)
    answer = trial.command(*READERS["evaluate"])
    assert (answer.status, answer.out) == (0, whole.evaluated)
    assert "made before sums were kept" in answer.line
    assert trial.resumed(()) == "same"


def at(trial):
    """Where its commands run; nothing is told of those before."""
    os.chdir(trial.path)
    trial.log.clear()


@fuzz
@given(setting=SETTINGS, value=NUMBERS | st.sampled_from(VALUES) | st.text())
def test_a_value_is_taken_or_its_setting_is_named(trial, setting, value):
    (task, guider), name = setting
    at(trial)
    set_one(trial, task, guider, name, value)
    shutil.rmtree(trial.path / "new", ignore_errors=True)


@fuzz
@given(command=st.sampled_from(WORDS[:6]), words=st.lists(st.sampled_from(WORDS) | st.text(), max_size=6))
def test_a_command_line_is_taken_or_refused_in_a_line(trial, command, words):
    at(trial)
    taken_or_named(trial, [command, *words], ())
