"""TensorBoard's event files hold the rows of metrics.jsonl, each once, also after a resume."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from gps.experiments.experiment import Experiment
from gps.runs.folder import RunFolder
from gps.runs.resume import resumed
from gps.runs.tensorboard import events
from gps.runs.train import train
from gps.settings import SettingsError

SETTINGS = {
    "run": {"task": "tiger-door", "guider": "gpo-clip", "iterations": 2, "tensorboard": True},
    "guider": {"ppo": {"environments": 4, "unroll": 8, "updates": 1}},
}


def read(place: Path) -> dict[str, dict[int, tuple[float, float]]]:
    """Of each scalar, by steps: when it was, and its value. (Records are a length, its sum, an event and its sum.)"""
    scalars = {}
    for file in place.iterdir():
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    assert event.step not in scalars.setdefault(value.tag, {})
                    scalars[value.tag][event.step] = (event.wall_time, value.simple_value)
    return scalars


@pytest.mark.usefixtures("quick")
def test_event_files_hold_each_row_once(tmp_path):
    train(RunFolder.create(tmp_path / "run", Experiment.resolve(SETTINGS)), quiet=True)
    longer = Experiment.resolve(SETTINGS | {"run": SETTINGS["run"] | {"iterations": 3}})
    folder = resumed(tmp_path / "run", longer)
    train(folder, quiet=True)
    rows, scalars = folder.metrics.rows(), read(folder.path / "tensorboard")
    assert len(rows) == 3
    for name in ("learner_return", "train_return", "seconds"):
        assert list(scalars[name]) == [row["steps"] for row in rows]
        np.testing.assert_allclose(
            [value for _, value in scalars[name].values()], [row[name] for row in rows], rtol=1e-6
        )
    times = [time for time, _ in scalars["seconds"].values()]
    np.testing.assert_allclose(np.diff(times)[0], rows[1]["seconds"] - rows[0]["seconds"], atol=1e-3)


def test_a_number_for_each_condition_is_a_mean_and_a_histogram(tmp_path):
    folder = RunFolder.create(tmp_path / "run", Experiment.resolve(SETTINGS))
    with events(folder, []) as log:
        log({"steps": 5, "seconds": 1.0, "cost": [1.0, None, 4.0], "lost": [None, None], "said": "text"})
    assert {name: values[5][1] for name, values in read(folder.path / "tensorboard").items()} == {
        "steps": 5.0,
        "seconds": 1.0,
        "cost": 2.5,
    }


def test_without_the_package_nothing_is_begun(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run", Experiment.resolve(SETTINGS))
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tensorboardX" else there(name, *a)
    )
    with pytest.raises(SettingsError, match=r"run.tensorboard = true.*pip install"):
        train(folder)
    assert not folder.metrics.rows()
