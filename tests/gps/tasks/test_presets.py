"""What tasks change of model-free guiders' defaults."""

from __future__ import annotations

import pytest

from gps.experiments.lookup import TASKS, find
from gps.guiders.model_free.methods import METHODS
from gps.guiders.model_free.settings import SETTINGS, TABLES
from gps.settings import flat, to_dict
from gps.tasks import presets

KNOWN = {f"{table}.{key}" for table, cls in TABLES.items() for key in flat(to_dict(cls()))}


@pytest.mark.parametrize("task", TASKS)
def test_every_number_of_a_preset_is_a_setting_of_some_guider(task):
    """`presets.of` leaves out what a guider does not have: a name that no guider has would be lost in silence."""
    preset = find("task", task).model_free
    assert set(flat(preset.get("guider", {}))) <= KNOWN
    for method, own in preset.get("methods", {}).items():
        assert set(flat(own)) <= set(flat(to_dict(SETTINGS[method]())))


def test_a_guider_takes_of_a_preset_what_it_has_and_its_own_values_last():
    preset = {
        "run": {"iterations": 7},
        "guider": {"ppo": {"epochs": 1, "clip": 0.3}, "region": {"size": 0.5}, "networks": {"shared": False}},
        "methods": {"gpo-naive": {"ppo": {"clip": 0.1}}},
    }
    taken = {name: presets.of(preset, name, SETTINGS[name]()) for name in METHODS}
    assert taken["ppo"] == {"run": {"iterations": 7}, "guider": {"ppo": {"epochs": 1, "clip": 0.3}}}
    assert taken["gpo-naive"]["guider"] == {"ppo": {"epochs": 1, "clip": 0.1}}
    assert taken["gpo-clip"]["guider"] == preset["guider"]
    assert {name for name in METHODS if "region" in taken[name]["guider"]} == {"gpo-clip", "gpo-clip-supervised"}
