"""A run on several devices comes to the numbers of one; the devices are a CPU that counts as four."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from support.processes import GPS, finished

from gps.experiments.experiment import Experiment
from gps.runs.devices import mesh_of
from gps.runs.folder import RunFolder
from gps.settings import SettingsError

FOUR = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
SMALL = {
    "gpo-clip": ("tiger-door", ["guider.ppo.environments=8", "guider.ppo.unroll=8", "guider.ppo.updates=2"]),
    "badmm": ("reacher", ["task.horizon=8", "task.train_targets=4", "task.test_targets=2", "guider.rounds=1"]),
}
WHERE = """
import sys, jax
from gps.runs.folder import RunFolder
from gps.runs.programs import Programs
programs = Programs(RunFolder.open(sys.argv[1]).experiment.build(), 4)
state = programs.place(jax.jit(programs.guider.init)(jax.random.key(0)))
after, _ = programs.iterate(state, jax.random.key(1))
split = [leaf.sharding.spec for leaf in jax.tree.leaves(after) if not leaf.sharding.is_fully_replicated]
shares = {leaf.addressable_shards[0].data.shape[0] * 4 == leaf.shape[0] for leaf in jax.tree.leaves(after)
          if not leaf.sharding.is_fully_replicated}
print(len(split) > 2, shares)
"""


@pytest.mark.slow
@pytest.mark.parametrize("guider", SMALL)
def test_four_devices_come_to_the_numbers_of_one(guider, tmp_path):
    task, settings = SMALL[guider]
    settings = [*settings, "guider.learner.network.hidden=[8]"]
    runs = {}
    for devices in (1, 4):
        out = tmp_path / str(devices)
        given = [f"--set={setting}" for setting in (*settings, f"run.devices={devices}")]
        done = finished(*GPS, "train", task, "--guider", guider, "--iterations", "2", *given, "--out", out, **FOUR)
        assert done.returncode == 0, done.stderr
        runs[devices] = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for one, four in zip(runs[1], runs[4], strict=True):
        for name in set(one) - {"seconds", "iteration_seconds"}:
            np.testing.assert_allclose(
                np.array(four[name], float), np.array(one[name], float), rtol=2e-3, atol=1e-4, err_msg=name
            )
    where = finished(sys.executable, "-c", WHERE, tmp_path / "4", **FOUR)
    assert where.stdout.split() == ["True", "{True}"], where.stderr


def test_devices_that_there_are_not_and_batches_that_can_not_be_shared_are_errors(monkeypatch):
    guider = Experiment.resolve({"run": {"task": "tiger-door", "guider": "ppo"}}).build()
    with pytest.raises(SettingsError, match=r"run.devices = 500: there are \d+ \(cpu\); with XLA_FLAGS="):
        mesh_of(guider, 500)
    monkeypatch.setattr("jax.local_devices", lambda _: [None] * 7)
    with pytest.raises(SettingsError, match=rf"run.devices = 7: {guider.batch} conditions or environments can not be"):
        mesh_of(guider, 7)


def test_a_run_says_on_how_many_devices_it_is(tmp_path):
    experiment = Experiment.resolve({"run": {"task": "tiger-door", "guider": "ppo", "devices": 4}})
    assert RunFolder.create(tmp_path / "run", experiment).experiment.run.devices == 4
    with pytest.raises(SettingsError, match="devices must be at least 1, not 0"):
        Experiment.resolve({"run": {"devices": 0}})
