"""`gps export` and `gps.load`: the learner in other programs acts as it does here."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import jax
import mujoco
import numpy as np
import pytest
from support import processes

import gps
from gps.errors import UserError
from gps.experiments.experiment import Experiment
from gps.runs import export, export_onnx
from gps.runs.export import Learner
from gps.tasks import episodes

# A process that knows nothing of the framework drives MuJoCo itself; what the reacher observes is written down again.
DRIVER = """
import sys
for name in ("gps", "controllers", "dynamics", "policies", "flax"):
    sys.modules[name] = None  # can not be imported
sys.path.insert(0, "run-learner")
import mujoco, numpy as np
from learner import Learner

model, (qpos, qvel, target) = mujoco.MjModel.from_binary_path("model.mjb"), np.load("start.npy")
data, learner, path = mujoco.MjData(model), Learner(), []
data.qpos, data.qvel = qpos, qvel
for _ in range(8):
    path.append([*data.qpos, *data.qvel])
    mujoco.mj_kinematics(model, data)
    c, s = np.cos(data.qpos[0]), np.sin(data.qpos[0])
    into_arm = np.array([[c, s], [-s, c]])
    tip = data.site("fingertip").xpos[:2]
    elbow = data.qpos[1]
    seen = [np.cos(elbow), np.sin(elbow), *(into_arm @ target), *(into_arm @ (tip - target)), *data.qvel]
    data.ctrl = np.clip(learner(seen), -1, 1)
    mujoco.mj_step(model, data, 5)
np.save("path.npy", path)
"""


def test_an_exported_learner_drives_the_model_as_it_does_here(finished, said):
    status, lines, _ = said("export", finished)
    assert (status, lines[0]) == (0, "the learner after iteration 3 of 3")
    assert lines[1].startswith("run-learner: learner.py loads it; an action takes ")
    run = gps.load(finished)
    task, context = run.task, run.task.test_contexts[1]
    episode = episodes.run_episode(task, run.learner.policy, context, jax.random.key(5))
    xs = np.asarray(jax.vmap(task.control_state)(episode.states))
    mujoco.mj_saveModel(task.simulator.model, "model.mjb", None)
    np.save("start.npy", np.stack([xs[0, :2], xs[0, 2:], context]))
    Path("driver.py").write_text(DRIVER)
    done = processes.finished(sys.executable, "driver.py")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load("path.npy"), xs[:8], atol=1e-5)


def test_a_loaded_run_has_its_task_its_learner_and_its_controllers(finished):
    run = gps.load(finished, 2)
    assert (run.step, str(run)) == (2, "the learner after iteration 2 of 3")
    assert run.controllers.K.shape == (2, 8, 2, 4)
    observation = np.linspace(-1.0, 1.0, 8, dtype=np.float32)
    assert run.learner is run.learner  # what is compiled for it is kept
    action, memory = run.learner(observation)
    np.testing.assert_allclose(action, np.clip(run.learner.policy.mean(observation), -1, 1), rtol=1e-6)
    assert memory.shape == (0,)
    with pytest.raises(ValueError, match=r"learner of reacher takes observations of shape \(8,\), not \(1, 8\)"):
        run.learner(observation[None])


def test_a_learner_that_remembers_and_chooses_does_so_wherever_it_is(tmp_path):
    table = {"learner": {"network": {"hidden": [6], "memory": 5}}}
    guider = Experiment.resolve({"run": {"task": "tiger-door", "guider": "ppo"}, "guider": table}).build()
    policy = guider.policy(guider.init(jax.random.key(0)))
    params = jax.tree.map(lambda p: 5.0 * p, policy.params)  # so that choices differ
    learner = Learner(type(policy)(policy.network, policy.distribution, params, policy.normalizer), guider.task)
    path = export.write(learner, tmp_path / "out", {"task": "tiger-door"})
    about = json.loads((path / "learner.json").read_text())
    assert about == {"task": "tiger-door", "observation": 3, "memory": 5, "action": 3, "discrete": True}
    elsewhere = processes.printed(
        f"import sys; sys.path.insert(0, {str(path)!r})\nimport numpy as np\nfrom learner import Learner\n"
        "learner = Learner()\nseen = np.random.default_rng(0).normal(size=(2, 12, 3))\n"
        "for one in seen:\n    learner.reset()\n    print(*(int(learner(o)) for o in one))"
    )
    wanted = []
    for one in np.random.default_rng(0).normal(size=(2, 12, 3)):
        memory, choices = None, []
        for o in one:
            action, memory = learner(o, memory)
            choices.append(int(action))
        wanted.append(choices)
    assert [list(map(int, line.split())) for line in elsewhere.splitlines()] == wanted
    with jax.enable_x64(True):
        export.write(learner, tmp_path / "double", {})
    median, least = export.microseconds(tmp_path / "double", 10)  # it takes what a process of single precision has
    assert 0 < least <= median
    assert len({choice for choices in wanted for choice in choices}) > 1


@pytest.mark.parametrize("memory", [0, 5])
def test_an_onnx_model_acts_as_the_learner_does(tmp_path, memory):
    pytest.importorskip("jax2onnx")
    network = {"hidden": [6, 6], "memory": memory}
    settings = {"run": {"task": "reacher", "guider": "ppo"}, "guider": {"learner": {"network": network}}}
    guider = Experiment.resolve(settings).build()
    policy = guider.policy(guider.init(jax.random.key(0)))
    params = jax.tree.map(lambda p: 5.0 * p, policy.params)
    normalizer = policy.normalizer.update(jax.random.normal(jax.random.key(1), (9, 8)), jax.numpy.ones(9))
    learner = Learner(type(policy)(policy.network, policy.distribution, params, normalizer), guider.task)
    path = export.write(learner, tmp_path / "out", {}, onnx=True)
    code = f"""
import sys
for name in ("gps", "policies", "flax", "jax"):
    sys.modules[name] = None  # can not be imported
sys.path.insert(0, {str(path)!r})
import numpy as np
from learner import Learner
learner = Learner()
for episode in np.random.default_rng(0).normal(size=(2, 6, 8)):
    learner.reset()
    for o in episode:
        print(*learner(o))
"""
    actions = [list(map(float, line.split())) for line in processes.printed(code).splitlines()]
    wanted = []
    for episode in np.random.default_rng(0).normal(size=(2, 6, 8)):
        last = None
        for o in episode:
            action, last = learner(o, last)
            wanted.append(action)
    np.testing.assert_allclose(actions, wanted, atol=1e-5)
    assert np.ptp(wanted, axis=0).min() > 0.1
    assert export.microseconds(path, 10)[0] > 0


def test_a_learner_that_jax2onnx_can_not_translate_is_refused_in_a_line():
    pytest.importorskip("jax2onnx")

    def act(memory, o):
        return memory, jax.pure_callback(np.sin, jax.ShapeDtypeStruct(o.shape, o.dtype), o)

    with pytest.raises(UserError, match=r"--format onnx: jax2onnx can not translate this learner: .*pure_callback"):
        export_onnx.model(act, 0, 3)


def test_without_jax2onnx_the_extra_is_named(finished, said, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "jax2onnx" else there(name, *a))
    status, out, errors = said("export", finished, "--format", "onnx")
    assert (status, out) == (2, [])
    assert errors == [
        "gps: --format onnx needs jax2onnx, which is not installed: pip install 'guided-policy-search[onnx]'"
    ]
    assert not Path("run-learner").exists()


def test_nothing_is_overwritten(finished, said):
    Path("run-learner").mkdir()
    assert said("export", finished) == (2, [], ["gps: run-learner exists: export to another place with --out"])
    assert said("export", finished, "--out", "other", "--step", "1")[0] == 0
    assert sorted(path.name for path in Path("other").iterdir()) == [
        "learner.json",
        "learner.py",
        "learner.stablehlo",
    ]
