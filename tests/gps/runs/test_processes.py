"""Two processes train a run together and come to the numbers of one; when one ends, so does the other."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time

import jax
import numpy as np
import pytest
from support.processes import ENVIRONMENT, GPS

from gps.experiments.experiment import Experiment
from gps.runs.devices import mesh_of
from gps.runs.folder import RunFolder
from gps.settings import SettingsError

TINY = (
    *("tiger-door", "--guider", "gpo-clip", "--set=run.devices=2", "--set=run.checkpoint_every=1"),
    *("--set=guider.ppo.environments=8", "--set=guider.ppo.unroll=8", "--set=guider.ppo.updates=2"),
    "--set=guider.learner.network.hidden=[8]",
)


def start(*arguments, devices=1):
    """`gps train` in a process of its own, which has so many devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    command = [*GPS, "train", *TINY, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**ENVIRONMENT, "XLA_FLAGS": flags}, **pipes)


def start_two(*arguments):
    """Two that train one run; the second number is started first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    several = ("--processes", 2, "--coordinator", place)
    follower = start(*arguments, *several, "--process", 1)
    return start(*arguments, *several, "--process", 0), follower


def ended(process):
    """Its exit status, and what it has said."""
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def rows(folder):
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def numbers(row):
    kept = [value for name, value in sorted(row.items()) if "seconds" not in name and name != "compiles"]
    return np.array(kept, float)  # NaN for null


@pytest.mark.slow
def test_two_processes_come_to_the_numbers_of_one_and_end_together(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    one = start("--iterations", 3, "--out", alone, devices=2)
    assert ended(one)[0] == 0
    (status, out, errors), (other, silent, nothing) = map(ended, start_two("--iterations", 2, "--out", together))
    assert (status, other, errors, nothing) == (0, 0, "", "")
    assert "tiger-door by gpo-clip, seed 0: 2 iterations" in out
    assert "tiger-door" not in silent  # one alone prints; gloo has a line of its own
    assert len(list((together / "figures").iterdir())) > 0

    (status, _, errors), (other, _, told) = map(ended, start_two("--iterations", 2, "--out", together))
    assert (status, other) == (2, 2)
    assert "exists: continue that run with --resume" in errors
    assert told == errors.replace("gps: ", "gps: process 0: ")

    leader, follower = start_two("--iterations", 10**6, "--out", together, "--resume")
    try:
        while leader.poll() is None and len(rows(together)) < 4:
            time.sleep(0.1)
        follower.kill()
        status, _, errors = ended(leader)
    finally:
        leader.kill()
        follower.kill()
        follower.communicate()
    assert status == 2
    # as they meet, or in the middle of a program
    told = (
        "gps: (process 0 can not go on, as another has|a program of process 0 failed, perhaps because another .* has)"
    )
    assert re.match(f"{told} ended.*gps train --resume", errors)
    assert errors.count("\n") == 1
    for here, there in zip(rows(alone), rows(together), strict=False):
        np.testing.assert_allclose(numbers(there), numbers(here), rtol=1e-5, atol=1e-6)
    assert len(RunFolder.open(together).checkpoints.steps()) == 3


def test_what_several_processes_can_not_do_is_an_error(monkeypatch, tiny):
    door = Experiment.resolve({"run": {"task": "tiger-door", "guider": "ppo"}}).build()
    arm = tiny().build()
    plant = tiny("run.plant.address=tcp://127.0.0.1:1").build()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(SettingsError, match=r"run.devices = 3 can not be shared evenly among 2 processes"):
        mesh_of(door, 3)
    with pytest.raises(SettingsError, match=r"reacher is simulated on the host of one process.*--engine mjx"):
        mesh_of(arm, 2)
    with pytest.raises(SettingsError, match=r"run.plant.address: a plant answers one process"):
        mesh_of(plant, 2)
    monkeypatch.setattr(jax, "local_devices", lambda process: jax.devices()[:1])
    with pytest.raises(SettingsError, match=r"run.devices = 4: there are 1 in each of 2 processes \(cpu\); with XLA_F"):
        mesh_of(door, 4)
