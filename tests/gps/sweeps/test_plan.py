"""The file of a sweep: what it says, and what is wrong with it before anything is run."""

from __future__ import annotations

import pytest

from gps.runs.folder import UntrustedError
from gps.settings import SettingsError
from gps.sweeps.plan import Range


def test_a_file_says_what_is_varied_and_what_is_not(plan):
    made = plan(
        'guider.ppo.learning_rate = { low = 1e-4, high = 1e-2, log = true }\nguider.region.form = ["delta"]\n'
        "guider.ppo.updates = { low = 1, high = 8 }",
        values='search = "random"\ntrials = 7',
        settings="guider.ppo.environments = 12",
    )
    assert made.vary == {
        "guider.ppo.learning_rate": Range(1e-4, 1e-2, log=True),
        "guider.region.form": ["delta"],
        "guider.ppo.updates": Range(1, 8),
    }
    assert made.vary["guider.ppo.updates"].whole
    assert not made.vary["guider.ppo.learning_rate"].whole
    experiment = made.experiment({"guider.ppo.updates": 3}, seed=5)
    assert (experiment.run.seed, experiment.run.iterations) == (5, 2)
    assert (experiment.guider.ppo.updates, experiment.guider.ppo.environments) == (3, 12)


def test_runs_draw_figures_of_their_own_where_the_file_says_so(plan):
    own = [plan("guider.ppo.clip = [0.1]", settings=line).experiment({}, 0) for line in ("", "run.figures = true")]
    assert [experiment.run.figures for experiment in own] == [False, True]
    assert not own[0].differences(own[1]).keys() - {"run.figures"}


def test_names_of_cells_are_short_and_can_be_folders(plan):
    made = plan("guider.region.size = [0.1]\nguider.ppo.clip = [0.2]\nguider.learner.network.hidden = [[8, 8], [4]]")
    assert made.name({"guider.region.size": 0.1, "guider.ppo.clip": 0.2}) == "size=0.1,clip=0.2"
    named = {made.name({"guider.learner.network.hidden": value}) for value in ([8, 8], [4], [88], ["/etc"])}
    assert len(named) == 4
    assert not set("".join(named)) & set("/ []'\"")


WRONG = [
    ("guider.ppo.learning_rte = [1]", {}, "unknown setting 'guider.ppo.learning_rte'; did you mean 'learning_rate'"),
    ("guider.ppo.learning_rate = [1e-3, -1]", {}, "learning_rate must be positive, not -1"),
    ("guider.ppo.learning_rate = 3", {}, "vary.guider.ppo.learning_rate must be a list of values, or { low"),
    ("guider.ppo.learning_rate = []", {}, "must be a list of different values, not []"),
    ("guider.ppo.learning_rate = [1, 1]", {}, "must be a list of different values"),
    (
        "guider.ppo.learning_rate = {low = 1e-3, high = 1e-2}",
        {},
        "is a range, which search = 'grid' can not go through",
    ),
    ("guider.ppo.learning_rate = {low = 2, high = 1}", {"values": 'search = "random"'}, "low must be below high"),
    (
        "guider.ppo.learning_rate = {low = 0, high = 1, log = true}",
        {"values": 'search = "random"'},
        "low must be positive",
    ),
    (
        "guider.ppo.learning_rate = {low = 1}",
        {"values": 'search = "random"'},
        "'vary.guider.ppo.learning_rate.high' is miss",
    ),
    ("", {}, "nothing is varied"),
    ("run.seed = [1, 2]", {}, "run.seed is the sweep's own"),
    ("guider.ppo.clip = [0.1]", {"settings": 'run.task = "reacher"'}, "run.task is the sweep's own"),
    ("guider.ppo.clip = [0.1]", {"values": 'search = "gird"'}, "unknown search 'gird'; did you mean 'grid'"),
    ("guider.ppo.clip = [0.1]", {"values": "seeds = 0"}, "seeds must be at least 1, not 0"),
    ("guider.ppo.clip = [0.1]", {"values": "sedes = 1"}, "unknown setting 'sedes'; did you mean 'seeds'"),
    (
        "guider.ppo.clip = [0.1]",
        {"settings": "guider.pop.clip = 1"},
        "unknown setting 'guider.pop'; did you mean 'ppo'",
    ),
]


@pytest.mark.parametrize(("vary", "more", "reason"), WRONG, ids=[reason for _, _, reason in WRONG])
def test_mistakes_are_named_before_anything_is_run(plan, vary, more, reason):
    with pytest.raises(SettingsError) as error:
        plan(vary, **more)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_values_of_a_setting_that_go_together_with_others_are_checked_with_them(plan):
    assert plan('guider.region.form = ["ratio"]\nguider.region.size = [2.0, 3.0]').vary
    with pytest.raises(SettingsError, match="size must be above 1"):
        plan('guider.region.form = ["ratio"]\nguider.region.size = [2.0, 0.5]')


def test_code_is_not_imported_without_trust(plan, monkeypatch):
    code = 'guider.learner.network.vision.encoder = ["points", "no_such_module:thing"]'
    with pytest.raises(UntrustedError, match=r"no_such_module:thing' is code.*--trust"):
        plan(code)


def test_settings_whose_last_words_are_the_same_have_their_whole_names(plan):
    made = plan(
        "guider.ppo.learning_rate = [1e-3]\nguider.sitt.learning_rate = [1e-3]\nguider.ppo.clip = [0.1]", guider="sitt"
    )
    assert made.name({"guider.sitt.learning_rate": 0.001, "guider.ppo.clip": 0.1}) == (
        "guider.sitt.learning_rate=0.001,clip=0.1"
    )


@pytest.mark.parametrize(
    "option", ['local_setup = ["touch x"]', 'runtime_env = "x"', 'slurm_partition = "a\\ntouch x"']
)
def test_options_that_could_run_something_need_trust(plan, option):
    with pytest.raises(UntrustedError, match=r"options.\w+ = .* may run code of its own.*--trust"):
        plan("guider.ppo.clip = [0.1]", values="", settings=f"[options]\n{option}")
    assert plan("guider.ppo.clip = [0.1]", settings='[options]\nslurm_partition = "gpu-1"\ntimeout_min = 5').options
