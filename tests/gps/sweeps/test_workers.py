"""Who runs cells: processes, and jobs of Slurm (submitit's local stand-in) and of Ray where that is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
from support.processes import ENVIRONMENT

from gps.experiments.experiment import Experiment
from gps.runs.folder import RunError, RunFolder
from gps.settings import SettingsError
from gps.sweeps.workers import CellError, jobs_of

TINY = {
    "run": {"task": "tiger-door", "guider": "ppo", "iterations": 1},
    "guider": {
        "ppo": {"environments": 2, "unroll": 4, "updates": 1, "minibatches": 1},
        "learner": {"network": {"hidden": [4]}},
    },
}
KINDS = [("processes", {}), ("slurm", {"cluster": "local", "timeout_min": 5}), ("ray", {"num_cpus": 1})]


@pytest.fixture(params=KINDS, ids=[name for name, _ in KINDS])
def jobs(request, tmp_path):
    name, options = request.param
    if name == "ray":
        pytest.importorskip("ray")
    made = jobs_of(name, options, tmp_path, trust=False)
    yield made
    made.stop()


@pytest.mark.slow
def test_a_cell_is_run_to_its_end_and_a_broken_one_says_why(jobs, tmp_path):
    seeds = [
        RunFolder.create(tmp_path / f"run{seed}", Experiment.resolve(TINY | {"run": TINY["run"] | {"seed": seed}})).path
        for seed in (0, 1)
    ]
    jobs.run(seeds, tmp_path / "log")
    summaries = [json.loads((path / "summary.json").read_text()) for path in seeds]
    assert [(summary["seed"], summary["iterations"]) for summary in summaries] == [(0, 1), (1, 1)]
    (seeds[0] / "config.toml").write_text("")
    with pytest.raises(CellError, match="holds no settings"):
        jobs.run(seeds, tmp_path / "log")


def test_executors_and_options_that_there_are_not_are_named(tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match=r"options.workers: executor = 'processes' has no options"):
        jobs_of("processes", {"workers": 3}, tmp_path, trust=False)
    with pytest.raises(SettingsError, match=r"executor = 'slurm': .*timeout_mni"):
        jobs_of("slurm", {"cluster": "local", "timeout_mni": 3}, tmp_path, trust=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(SettingsError, match=r"pip install 'guided-policy-search\[ray\]'"):
        jobs_of("ray", {}, tmp_path, trust=False)


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(tmp_path):
    long = Experiment.resolve(TINY | {"run": TINY["run"] | {"iterations": 100_000}})
    path = RunFolder.create(tmp_path / "run", long).path
    code = f"""
from pathlib import Path
from gps.sweeps.workers import jobs_of
jobs = jobs_of("processes", {{}}, Path({str(tmp_path)!r}), trust=False)
jobs.run([Path({str(path)!r})], Path({str(tmp_path / "log")!r}))
"""
    with subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT) as parent:
        while not RunFolder.open(path).metrics.count():
            assert parent.poll() is None
            time.sleep(0.1)
        parent.kill()
    for _ in range(100):
        try:
            with RunFolder.open(path).locked():
                return
        except RunError:
            time.sleep(0.1)
    raise AssertionError("the worker trains on")
