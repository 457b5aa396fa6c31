"""All figures of a run: generic panels for any task, and a drawing that fails is one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gps.cli.main import main
from gps.figures import draw, episodes
from gps.figures.episodes import LearnerEpisodes
from gps.tasks.task import Score


def acted(C: int = 5, nc: int = 3, **changes) -> LearnerEpisodes:
    """Episodes of three states and two actions, one of which diverged; contexts of nc numbers."""
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(C, 9, 3))
    xs[1, 4:] = np.nan
    fields = {
        "score": Score("angle", "rad"),
        "scores": np.where(np.arange(C) == 1, np.nan, np.arange(C) + 0.5),
        "solved": None,
        "contexts": rng.normal(size=(C, nc)),
        "xs": xs,
        "us": rng.normal(size=(C, 8, 2)),
        "costs": rng.uniform(0.1, 1.0, (C, 9)),
        "dt": 0.1,
    }
    return LearnerEpisodes(**{**fields, **changes})


@pytest.mark.parametrize("nc", [1, 2, 3, 7])
def test_scores_of_contexts_of_any_size_are_shown(nc):
    episodes_ = acted(nc=nc)
    figure = episodes.episodes_figure(episodes_)
    assert figure is not None
    panel = figure.axes[3]
    shown = np.concatenate([line.get_xydata() for line in panel.lines])
    np.testing.assert_allclose(np.sort(shown[:, 1]), [0.5, 2.5, 3.5, 4.5])
    best_first = 100 * (0.5 + np.arange(4)) / 4
    sound = np.isfinite(episodes_.scores)
    np.testing.assert_allclose(shown[:, 0], episodes_.contexts[sound, 0] if nc == 1 else best_first)
    assert panel.get_ylabel() == "angle (rad)"
    assert panel.get_title() == "1 diverged"


def test_a_drawing_that_fails_is_a_line_and_the_others_are_drawn(tmp_path, monkeypatch):
    def failing(acted):
        raise RuntimeError("no such\nlimb")

    monkeypatch.setattr(episodes, "paths_figure", failing)
    told = []
    rows = [{"iteration": 0, "steps": 10, "test_score": 1.0}]
    files = draw.draw_all(rows, acted(skeletons=np.zeros((5, 9, 2, 3))), None, tmp_path, told.append)
    assert told == ["figure paths is missing: RuntimeError: no such"]
    assert {file.stem for file in files} == {"learning_curves", "episodes", "animation"}


def test_without_a_renderer_and_a_skeleton_a_line_says_why_there_is_no_animation(tmp_path):
    told = []
    files = draw.draw_all([], acted(), None, tmp_path, told.append)
    assert {file.stem for file in files} == {"episodes"}
    assert told == ["figure animation is missing: the task has no MuJoCo model, and the task has no skeleton"]


@pytest.mark.slow
def test_a_task_that_can_not_be_drawn_is_trained_and_summarised(tmp_path, capsys, monkeypatch):
    def failing(*_):
        raise RuntimeError("no GL")

    monkeypatch.setattr(draw, "animate", failing)
    sizes = ["guider.ppo.environments=4", "guider.ppo.unroll=6", "guider.ppo.updates=1", "guider.ppo.minibatches=1"]
    options = [f"--set={setting}" for setting in (*sizes, "guider.learner.network.hidden=[4]")]
    command = ["train", "support.carts:UNDRAWABLE", "--guider=ppo", "--iterations=1", f"--out={tmp_path}", *options]
    assert main(command) == 0
    assert json.loads((tmp_path / "summary.json").read_text())["score"]["unit"] == "m"
    told = capsys.readouterr().err.splitlines()
    assert "`skeleton` of the task is not drawn: RuntimeError: no such limb" in told
    assert "figure animation is missing: RuntimeError: no GL" in told
    assert "anywhere" not in told
    drawn = {file.stem for file in (tmp_path / "figures").iterdir()}
    assert drawn == {"returns", "learning_curves", "episodes"}
