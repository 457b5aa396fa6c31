"""Checkpoints of processes that die in a save, and what is printed meanwhile: nothing."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from support.deaths import Killed, dying_after
from support.folders import files_of, flip
from support.processes import ENVIRONMENT, finished
from support.states import assert_same, saved, state_of

from gps.runs.checkpoints import Checkpoints


def test_a_process_that_dies_anywhere_in_a_save_loses_no_checkpoint(tmp_path, monkeypatch):
    """Save step 3 over damaged remains with a death before each of its changes to the folder in turn."""
    saved(tmp_path / "before", steps=(1, 2, 3))
    flip(files_of(tmp_path / "before" / "00000003" / "arrays")[0], 0)
    folder, deaths = tmp_path / "folder", 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "before", folder)
        count = dying_after(deaths)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", count(shutil.rmtree))
            for name in ("rename", "write_text", "mkdir"):
                patch.setattr(Path, name, count(getattr(Path, name)))
            try:
                Checkpoints(folder, keep=2).save(3, state_of(3), {})
                break
            except Killed:
                deaths += 1
        restored = Checkpoints(folder).restore(state_of(0))
        assert restored.step in (2, 3)
        assert_same(restored.state, state_of(restored.step))
        saved(folder, steps=(3,))
        assert Checkpoints(folder).restore(state_of(0)).step == 3
        assert not list(folder.glob("tmp-*"))
    # mkdir of the folder and of the draft, the record, two renames of step 3, rename and deletion of step 1
    assert deaths >= 7


CHILD = """
import sys
from pathlib import Path
from gps.runs.checkpoints import Checkpoints
from support.states import state_of
checkpoints = Checkpoints(sys.argv[1], keep=2)
restored = checkpoints.restore(state_of(0))
step = restored.step if restored else 0
while True:
    step += 1
    checkpoints.save(step, state_of(step), {"step": step})
    print(step, flush=True)
"""


def test_a_kill_in_the_middle_of_repeated_saves_leaves_a_whole_checkpoint(tmp_path):
    delays = random.Random(0)
    torn = 0
    for _ in range(4):
        command = [sys.executable, "-c", CHILD, str(tmp_path)]
        child = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        try:
            reported = int(child.stdout.readline())
            time.sleep(delays.uniform(0.0, 0.15))
        finally:
            child.kill()
            rest = child.communicate()[0].splitlines()
        reported = int(rest[-1]) if rest else reported
        torn += bool(list(tmp_path.glob("tmp-*")))
        restored = Checkpoints(tmp_path).restore(state_of(0))
        assert restored.step in (reported, reported + 1)  # a save may be whole before the child can say so
        assert (restored.meta, restored.skipped) == ({"step": restored.step}, [])
        assert_same(restored.state, state_of(restored.step))
    assert torn  # else no kill hit a save, and the test showed nothing


def test_nothing_is_printed(tmp_path):
    """Nor by orbax; in a process of its own, because pytest takes the log for itself."""
    code = f"""
import absl.logging
absl.logging.set_verbosity("info")  # as chatty as a user may have made it
from pathlib import Path
from support.states import saved, state_of
checkpoints = saved(Path({str(tmp_path)!r}))
files = [p for p in Path({str(tmp_path)!r}, "00000002").rglob("*") if p.is_file()]
for file in files:
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    assert checkpoints.restore(state_of(0)).step == (1 if data else 2)
    file.write_bytes(data)
checkpoints.save(3, state_of(3), {{}})
assert checkpoints.restore(state_of(0)).step == 3
"""
    done = finished(sys.executable, "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
