"""A run ends at the same bits however often it is killed, on either engine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from support import processes
from support.guided import LONG, assert_same_run, rows_of

from gps.runs import train
from gps.runs.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]
ENVIRONMENT = {
    **processes.ENVIRONMENT,
    "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}

# A run that is slow where it is to be killed.
CHILD = """
import sys, time
from gps.runs import checkpoints as checkpoint
from gps.runs import train
from gps.guiders.model_based.scaffold import ModelBased
from gps.runs.folder import RunFolder

def slow(function, seconds):
    def slowed(*arguments):
        time.sleep(seconds)
        return function(*arguments)
    return slowed

if sys.argv[2] == "training":
    ModelBased.check = slow(ModelBased.check, 0.3)  # between the two programs of an iteration
else:
    checkpoint.synced = slow(checkpoint.synced, 0.05)  # once for every file of a checkpoint
train.train(RunFolder.open(sys.argv[1]), quiet=True)
"""


def lines(path: Path) -> int:
    return (path / "metrics.jsonl").read_bytes().count(b"\n") if (path / "metrics.jsonl").exists() else 0


def drafts(path: Path, inside: str) -> set[tuple[str, int]]:
    """Unfinished checkpoints that hold this file; each by its name and when it was made."""
    found = set()
    for draft in (path / "checkpoints").glob("tmp-saving-*"):
        if (draft / inside).exists():
            found.add((draft.name, draft.stat().st_ino))
    return found


def kill_in(path: Path, moment: str):
    """Run or resume the run at `path` in a process of its own and kill it at that moment."""
    inside = {"training": "-", "save": ".", "end of save": "record.json"}[moment]
    old = drafts(path, inside)
    errors = path.with_name("errors.txt")
    with errors.open("w") as stderr:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path), moment], env=ENVIRONMENT, stderr=stderr)
    try:
        reached = False
        while not reached:
            assert child.poll() is None, errors.read_text()
            time.sleep(0.002)
            reached = lines(path) == 3 if moment == "training" else bool(drafts(path, inside) - old)
        if moment == "training":
            time.sleep(0.15)  # into the next iteration
    finally:
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGKILL
    assert lines(path) < 8


def test_a_run_killed_in_training_and_in_saves_ends_as_one_that_was_not(run_of, tiny, tmp_path):
    """Four processes; the first dies before there is a checkpoint, the last is the command line."""
    folder = RunFolder.create(tmp_path / "run", tiny(*LONG))
    kill_in(folder.path, "save")
    assert folder.checkpoints.steps() == []
    kill_in(folder.path, "training")
    assert folder.checkpoints.steps() == [2]
    assert lines(folder.path) == 3  # one more than the checkpoint has
    kill_in(folder.path, "end of save")
    assert folder.checkpoints.steps() == [2]
    assert lines(folder.path) == 4
    command = [*processes.GPS, "train", "reacher", "--resume", "--out", folder.path]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed after iteration 2 of 8" in done.stdout
    assert_same_run(folder, run_of(*LONG))
    assert sorted(entry.name for entry in folder.checkpoints.folder.iterdir()) == ["00000004", "00000006", "00000008"]


def test_a_run_on_the_other_engine_ends_at_the_same_bits_after_a_kill(run_of, tiny, tmp_path):
    changes = (*LONG, "run.engine=mjx")
    folder = RunFolder.create(tmp_path / "run", tiny(*changes))
    kill_in(folder.path, "training")
    train.train(folder, quiet=True)
    assert_same_run(folder, run_of(*changes))


def test_both_engines_run_the_same_experiment(run_of):
    """Within rounding: the simulations differ in the last bits, and three iterations carry that on."""
    one, other = rows_of(run_of(*LONG))[:3], rows_of(run_of(*LONG, "run.engine=mjx"))[:3]
    for name in ("cost", "kl_step", "controllers_score", "penalty", "lambda_norm"):
        np.testing.assert_allclose([row[name] for row in one], [row[name] for row in other], rtol=1e-3, err_msg=name)
