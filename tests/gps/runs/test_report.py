"""`gps report`: what pages hold of runs, read back from the file; and the page itself in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.browser import opened
from support.folders import contents
from support.guided import arm, trained

from dynamics.rollout import rollout
from gps.cli.main import main
from gps.figures.report.page import unpacked
from gps.runs import report
from gps.runs.finish import final_evaluation
from gps.runs.folder import RunFolder
from gps.runs.metrics import RunError
from gps.runs.resume import load
from gps.tasks.task import Score

HOSTILE = "</script><img src=x onerror='window.hacked=1'><b>{{script}}"


@pytest.fixture
def whole(quick, run_of):
    """The folder of a run of three iterations, not to be written."""
    return run_of()


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture
def page_of(whole, made):
    """The text of its page, made once; nothing in it fails."""
    if not made:
        made["text"] = report.of_run(report.read(whole), load(whole), pytest.fail)
    return made["text"]


def held(text: str) -> dict:
    """What a page holds, its sections by their titles."""
    found = json.loads(unpacked(re.search(r'id="report">([^<]*)<', text)[1]))
    return {**found, "sections": {part["title"]: part for part in found["sections"]}}


def numbers(coded: dict) -> np.ndarray:
    return np.cumsum(coded["changes"], axis=1) * np.array(coded["units"])[:, None]


def test_a_page_has_the_curves_and_the_results_of_the_metrics(whole, page_of):
    rows, found = whole.metrics.rows(), held(page_of)["sections"]
    panels = {panel["title"]: panel for panel in found["Learning"]["panels"]}
    curves = {trace.get("name"): trace for trace in panels["distance (cm)"]["data"]}
    for name, field in (("learner, test conditions", "test_score"), ("learner, training conditions", "train_score")):
        np.testing.assert_allclose(curves[name]["y"], [row[field] for row in rows], rtol=1e-5)
        assert curves[name]["xs"]["steps"] == [row["steps"] for row in rows]
    cells = {line["cells"][0]: line["cells"][1:] for line in found["Results"]["table"]["rows"]}
    assert float(cells["test distance (cm), mean"][0]) == pytest.approx(rows[-1]["test_score"], rel=5e-3)
    assert cells["test episodes solved"][0] == f"{rows[-1]['test_solved']} of {rows[-1]['test_episodes']}"
    settings = {line["cells"][0]: line["cells"][1] for line in found["Settings"]["table"]["rows"]}
    assert (settings["run.task"], settings["task.horizon"]) == ('"reacher"', "8")
    maps = {panel["title"]: panel["data"][0] for panel in found["Every condition"]["panels"]}
    trusted = np.array(maps["local model trusted (1) or not (0)"]["z"])
    assert (2 - trusted.sum(0)).tolist() == [row["untrusted_models"] for row in rows]


def test_episodes_are_those_of_the_last_evaluation_and_of_the_controllers(whole, page_of, quick):
    """The learner's as the evaluation in one program has them, the controllers' by a roll-out in one."""
    run = load(whole)
    task, M = run.task, len(run.task.train_contexts)
    evaluation = final_evaluation(run.experiment, quick(run.guider), run.guider, run.state)
    shown = report.played(run, pytest.fail)
    np.testing.assert_allclose(shown.learner.states, evaluation.states, atol=1e-4)
    np.testing.assert_allclose(shown.learner.scores, evaluation.score, atol=1e-3)
    np.testing.assert_allclose(shown.learner.costs.sum(1), evaluation.cost, rtol=1e-4)

    def guided(controller, start):
        def act(memory, t, state, _noise):
            x = task.control_state(state)
            return memory, controller.K[t] @ x + controller.k[t]

        return rollout(task.simulator, act, start, jnp.zeros(task.horizon))

    trajectories = jax.jit(jax.vmap(guided))(run.controllers, jnp.asarray(evaluation.states[:M, 0]))
    np.testing.assert_allclose(shown.guider.states, trajectories.states, atol=1e-4)
    np.testing.assert_allclose(shown.guider.us, trajectories.actions, atol=1e-4)
    replay = held(page_of)["sections"]["Replay"]["replay"]
    assert [one["name"].split(" (")[0] for one in replay["conditions"]] == [
        *("training 1", "training 2", "test 1", "test 2", "test 3", "test 4")
    ]
    first = replay["conditions"][0]["acted"]
    span = np.ptp(trajectories.states)
    np.testing.assert_allclose(numbers(first["guider"]["x"]).T, trajectories.states[0, :, 1:5], atol=1e-3 * span)
    assert set(replay["conditions"][2]["acted"]) == {"learner"}
    ends = jax.vmap(lambda state: task.skeleton(task.control_state(state))[-1])(evaluation.states[3])
    np.testing.assert_allclose(numbers(replay["conditions"][3]["acted"]["learner"]["path"]).T, ends, atol=1e-4)


def test_a_model_free_guider_acts_by_what_it_sees(quick, tmp_path):
    """Its network runs once more over the whole of what it saw: memory, privileged observations and all."""
    settings = arm("gpo-clip", "run.iterations=1", "guider.ppo.updates=1", "guider.learner.network.memory=3")
    run = load(trained(tmp_path / "run", settings))
    shown, task, networks = report.played(run, pytest.fail), run.task, run.guider.networks
    xs, M = shown.guider.xs[:, :-1], len(task.train_contexts)
    np.testing.assert_allclose(shown.guider.states[:, 0], shown.learner.states[:M, 0], atol=1e-6)

    def seen(x, context):
        obs = {"privileged_state": task.privileged(x, context), "state": task.observe(x, context, jnp.zeros(0))}
        return networks.everything(obs)

    o = run.state.normalizers["guider"](jax.vmap(jax.vmap(seen, (0, None)))(xs, task.train_contexts))
    first = jnp.broadcast_to((jnp.arange(task.horizon) == 0)[:, None], (task.horizon, M))
    memories = {"guider": jnp.zeros((M, 3))}
    z = networks.run(run.state.params, ("guider",), memories, {"guider": jnp.swapaxes(o, 0, 1)}, first)["guider"][1]
    distribution = networks.distribution
    actions = distribution.environment(distribution.sample(z, jnp.zeros((*z.shape[:2], task.nu))))
    np.testing.assert_allclose(shown.guider.us, jnp.swapaxes(task.simulator.clip(actions), 0, 1), atol=1e-5)
    assert np.abs(shown.guider.us - shown.learner.us[:M]).max() > 1e-3


def test_a_run_that_is_read_stays_as_it_is(whole, page_of):
    before = contents(whole.path)
    assert report.of_run(report.read(whole), load(whole), pytest.fail) == page_of  # and the page is the same each time
    assert contents(whole.path) == before


def test_a_run_without_checkpoint_or_iteration_is_shown_as_far_as_it_is(whole, tiny, tmp_path):
    begun = RunFolder.create(tmp_path / "run", tiny("run.checkpoint_every=3"))
    with pytest.raises(RunError, match="has no iteration yet"):
        report.read(begun)
    for row in whole.metrics.rows()[:2]:
        begun.metrics.append(row)
    found = held(report.of_run(report.read(begun), None, pytest.fail))
    assert ["iterations", "2 of 3"] in found["facts"]
    assert "Replay" not in found["sections"]
    assert len(found["sections"]["Learning"]["panels"]) == 3


def test_a_part_that_fails_is_told_and_the_others_are_there(whole, monkeypatch):
    def failing(*_):
        raise RuntimeError("no such\nlimb")

    monkeypatch.setattr(report, "policy_acts", failing)
    told = []
    found = held(report.of_run(report.read(whole), load(whole), told.append))
    assert told == found["notes"] == ["Episodes is missing: RuntimeError: no such"]
    assert "Learning" in found["sections"]


def test_several_runs_are_compared_and_what_differs_comes_first(whole):
    one = report.read(whole, "one")
    other = replace(one, name="other", settings={**one.settings, "guider.rounds": 5}, rows=one.rows[:2])
    found = held(report.of_runs([one, other], [Score("distance", "cm")] * 2, pytest.fail))["sections"]
    (first, second, *_), columns = found["Settings"]["table"]["rows"], found["Settings"]["table"]["columns"]
    assert (columns, first["cells"], first["differs"]) == (["", "one", "other"], ["guider.rounds", "2", "5"], True)
    assert not second["differs"]
    traces = found["Learning"]["panels"][0]["data"]
    assert [len(trace["y"]) for trace in traces] == [3, 2]
    assert traces[0]["line"]["color"] != traces[1]["line"]["color"]
    told = []
    reach = replace(one, settings={**one.settings, "run.task": "peg"})
    report.of_runs([one, reach], [Score("distance", "cm")] * 2, told.append)
    assert told == ["these runs are of different tasks, whose numbers do not compare: peg, reacher"]


def test_the_command_writes_the_page_and_says_where(whole, tmp_path, capsys):
    path = str(whole.path)
    assert main(["report", path, "--out", str(tmp_path / "new" / "page.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'page.html'}\n"
    assert held((tmp_path / "new" / "page.html").read_text())["sections"]["Replay"]["about"].startswith(
        "The learner after iteration 3 of 3, and the guider"
    )
    assert main(["report", path, path, "--out", str(tmp_path / "two.html")]) == 0
    assert "2 runs compared" in (tmp_path / "two.html").read_text()
    assert main(["report", path, path, "--step", "1"]) == 2
    assert "--step and --allow-older choose a checkpoint of one run" in capsys.readouterr().err


@pytest.mark.slow
def test_in_a_browser_curves_tell_their_numbers_and_the_replay_moves(whole, page_of, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page_of)
    with opened(file, tmp_path / "profile") as found:
        page = found.page
        curves = page.locator("#Learning .panel").first
        curves.locator(".nsewdrag").first.wait_for()
        area = curves.locator(".nsewdrag").first.bounding_box()
        page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2)  # the second of three iterations
        found.when("document.querySelector('#Learning .panel .hoverlayer').textContent.includes('test conditions')")
        said = curves.locator(".hoverlayer").text_content()
        score = whole.metrics.rows()[1]["test_score"]
        assert float(re.search(r"learner, test conditions : ([\d.]+)", said)[1]) == pytest.approx(score, rel=1e-3)
        page.locator("#replay-series").scroll_into_view_if_needed()
        found.when("document.querySelector('#replay-scene')?.data?.length > 3")
        at = found.page.evaluate("document.querySelector('#replay-scene').data[1].x")
        page.locator("#frame").fill("7")
        found.when(f"document.querySelector('#replay-scene').data[1].x[0] !== {at[0]!r}")
        page.locator("#axis").select_option("iteration")
        found.when("document.querySelector('#Learning .panel').data[1].x.join() === '1,2,3'")
        assert (found.errors, found.asked) == ([], [])


@pytest.mark.slow
def test_in_a_browser_a_hostile_run_is_only_text(whole, tmp_path):
    run = replace(
        report.read(whole, HOSTILE),
        rows=[{**row, HOSTILE: 1.0} for row in whole.metrics.rows()],
        versions={HOSTILE: HOSTILE},
    )
    run = replace(run, settings={**run.settings, "run.task": HOSTILE, HOSTILE: HOSTILE})
    file = tmp_path / "page.html"
    for text in (
        report.of_run(run, None, pytest.fail),
        report.of_runs([run, run], [Score(HOSTILE, HOSTILE)] * 2, pytest.fail),
    ):
        assert "<img" not in text
        file.write_text(text)
        with opened(file, tmp_path / "profile") as found:
            found.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            found.when("document.querySelectorAll('.js-plotly-plot').length > 2")
            assert found.page.locator("h1").text_content() == found.page.title()
            assert HOSTILE in found.page.locator("#Settings").text_content()
            assert found.page.locator("img").count() == 0
            assert (found.page.evaluate("window.hacked"), found.errors, found.asked) == (None, [], [])
