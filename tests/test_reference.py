"""The site's pages of guiders and tasks: they say what a run takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gps.experiments.experiment import Experiment
from gps.experiments.lookup import GUIDERS, TASKS
from gps.settings import flat, to_dict


@pytest.fixture(scope="module")
def pages():
    path = Path(__file__).parent.parent / ".ci" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


def row(name, value):
    """How a page says what a setting is by default."""
    shown = repr(value) if isinstance(value, str) else str(list(value) if isinstance(value, tuple) else value)
    return f"| `{name}` | `{shown}` |"


def test_everything_of_the_catalogue_has_a_page_and_a_line_in_its_list(pages):
    for folder, entries in (("guiders", GUIDERS), ("tasks", TASKS)):
        assert {f"reference/{folder}/{name}.md" for name in entries} < set(pages)
        for name in entries:
            assert f"[{name}]({name}.md)" in pages[f"reference/{folder}/index.md"]


@pytest.mark.parametrize(("kind", "entries"), [("guider", GUIDERS), ("task", TASKS)])
def test_a_page_has_every_setting_with_its_default(pages, kind, entries):
    for name, entry in entries.items():
        page = pages[f"reference/{kind}s/{name}.md"]
        for setting, value in flat(to_dict(entry.load().settings), f"{kind}.").items():
            assert row(setting, value) in page, (name, setting)


@pytest.mark.parametrize(
    ("task", "guider"),
    [("peg-blind", "badmm"), ("peg", "plato"), ("tiger-door", "gpo-clip-supervised"), ("brax-ant", "gpo-penalty")],
)
def test_what_a_run_takes_is_on_one_of_its_two_pages(pages, task, guider):
    """A setting of the guider, as a run resolves it, is the guider's default, or it is among the task's changes."""
    both = pages[f"reference/tasks/{task}.md"] + pages[f"reference/guiders/{guider}.md"]
    run = Experiment.resolve({"run": {"task": task, "guider": guider}})
    for setting, value in flat(to_dict(run.guider), "guider.").items():
        assert row(setting, value)[:-1] in both, setting


def test_a_terms_meaning_and_a_methods_mathematics_are_taken_over(pages):
    assert (
        "| `pull_back` | L3: KL(mu, stop(pi)); the guider is held to what the learner can imitate |"
        in (pages["reference/guiders/gpo-clip.md"])
    )
    assert "    pulls back:               lambda <- lambda + rate rho (u - pi(x))" in pages["reference/guiders/dgps.md"]
    assert "![pendulum](../../images/tasks/pendulum.png)" in pages["reference/tasks/pendulum.md"]
    assert "images" not in pages["reference/tasks/tiger-door.md"]  # the picture of `door` is of another task
