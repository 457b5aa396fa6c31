"""Which cells a search asks for."""

from __future__ import annotations

import numpy as np
import pytest

from gps.settings import SettingsError
from gps.sweeps.search import drawn, grid, search_of


def test_a_grid_is_all_combinations(plan):
    made = plan("guider.ppo.updates = [1, 2]\nguider.region.size = [0.5, 0.3]")
    assert list(grid(made)) == [
        {"guider.ppo.updates": updates, "guider.region.size": size} for updates in (1, 2) for size in (0.5, 0.3)
    ]


def test_random_numbers_fill_their_ranges_and_more_trials_begin_alike(plan):
    vary = (
        "guider.ppo.learning_rate = { low = 1e-4, high = 1e-2, log = true }\n"
        "guider.ppo.discount = { low = 0.5, high = 0.9 }\nguider.ppo.updates = { low = 1, high = 4 }\n"
        'guider.learner.network.activation = ["tanh", "relu"]'
    )
    cells = list(drawn(plan(vary, values='search = "random"\ntrials = 400')))
    assert len(cells) == 400
    rates = np.log10([cell["guider.ppo.learning_rate"] for cell in cells])
    np.testing.assert_allclose(np.quantile(rates, [0.25, 0.5, 0.75]), [-3.5, -3.0, -2.5], atol=0.12)
    discounts = [cell["guider.ppo.discount"] for cell in cells]
    np.testing.assert_allclose(np.quantile(discounts, [0.25, 0.5, 0.75]), [0.6, 0.7, 0.8], atol=0.03)
    assert {cell["guider.ppo.updates"] for cell in cells} == {1, 2, 3, 4}
    assert list(drawn(plan(vary, values='search = "random"\ntrials = 9'))) == cells[:9]


def test_there_are_not_more_random_cells_than_combinations(plan):
    cells = list(drawn(plan("guider.ppo.updates = { low = 1, high = 4 }", values='search = "random"\ntrials = 50')))
    assert sorted(cell["guider.ppo.updates"] for cell in cells) == [1, 2, 3, 4]


@pytest.mark.parametrize("minimize", [True, False])
def test_optuna_comes_near_an_optimum_that_it_does_not_know(plan, tmp_path, minimize):
    made = plan(
        "guider.ppo.learning_rate = { low = 1e-5, high = 1e-1, log = true }\nguider.ppo.updates = [1, 2, 4]",
        values='search = "optuna"\ntrials = 40',
    )

    def loss(cell):  # smallest at 1e-3 and 2
        return (np.log10(cell["guider.ppo.learning_rate"]) + 3) ** 2 + (cell["guider.ppo.updates"] != 2)

    def run(search, trials):
        cells = []
        while (cell := search.ask()) is not None:
            cells.append(cell)
            if len(cells) == trials:
                return cells  # stopped before it is told
            search.tell(cell, loss(cell) if minimize else -loss(cell))
        return cells

    before = run(search_of(made, tmp_path, "loss", minimize), 15)
    cells = run(search_of(made, tmp_path, "loss", minimize), 1000)
    assert (len(before), len(cells)) == (15, 40)
    assert len({repr(cell) for cell in cells}) > 35  # a search that goes on does not draw the same numbers again
    assert cells[:15] == before  # what was asked for before comes first, the untold one last
    assert min(map(loss, cells[20:])) < 0.05
    assert np.median([loss(cell) for cell in cells[20:]]) < np.median([loss(cell) for cell in cells[:10]])


def test_a_journal_is_of_one_sweep(plan, tmp_path):
    vary = "guider.ppo.updates = [1, 2, 4]"
    search_of(plan(vary, values='search = "optuna"'), tmp_path, "loss", True).ask()
    for other, minimize in ((vary.replace("4", "8"), True), (vary, False)):
        with pytest.raises(
            SettingsError, match=r"optuna.log is of a sweep of loss, minimize; guider.ppo.updates: \[1, 2, 4"
        ):
            search_of(plan(other, values='search = "optuna"'), tmp_path, "loss", minimize)


def test_a_trial_that_was_not_proposed_whole_is_given_up(plan, tmp_path):
    made = plan("guider.ppo.updates = [1, 2, 4]\nguider.ppo.clip = [0.1, 0.2]", values='search = "optuna"\ntrials = 3')
    search_of(made, tmp_path, "loss", True)._study.ask().suggest_categorical("guider.ppo.updates", range(3))
    search = search_of(made, tmp_path, "loss", True)
    cells = list(iter(search.ask, None))
    assert len(cells) == 2  # of three trials
    assert all(len(cell) == 2 for cell in cells)


def test_values_that_are_impossible_together_are_found_in_all_that_will_be_run(plan, tmp_path):
    made = plan(
        "run.iterations = [10, 2]\nguider.ppo.updates = [4, 1]",
        settings="guider.teacher.updates = 5",
        guider="bc",
        iterations="",
    )
    with pytest.raises(
        SettingsError, match=r"run.iterations = 2, guider.ppo.updates = 1: guider.teacher.updates = 5 leave"
    ):
        search_of(made, tmp_path, "loss", True)
