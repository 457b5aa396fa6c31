"""`gps evaluate`: what it prints, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from gps.runs.best import Saved
from gps.runs.folder import RunFolder, UntrustedError
from gps.runs.integrity import meta_of
from gps.runs.resume import load, resumable
from policies.distributions import Gaussian
from policies.network import Network, NetworkPolicy
from policies.vision import Eyes, Frozen

EVALUATIONS = [
    (["--seed", "99999999999999999999"], "seed must be from 0 to 4294967295, not 99999999999999999999"),
    (["--seed", "-5"], "seed must be from 0 to 4294967295, not -5"),
    (["--noise", "nan"], "noise must be finite and at least 0, not nan"),
    (["--noise", "inf"], "noise must be finite and at least 0, not inf"),
    (["--noise", "-1"], "noise must be finite and at least 0, not -1.0"),
]


@pytest.mark.parametrize(("arguments", "words"), EVALUATIONS)
def test_an_impossible_evaluation_is_named(refused, arguments, words):
    assert words in refused("evaluate", "run", *arguments)


def test_a_run_without_a_checkpoint_cannot_be_evaluated_yet(said, tiny):
    RunFolder.create("run", tiny())
    status, out, errors = said("evaluate", "run")
    assert (status, out) == (2, [])
    assert errors == ["gps: run has no checkpoint yet: train it with gps train --resume"]


def test_the_best_learner_is_evaluated_if_it_is_asked_for(said, finished):
    """It is another one than the last here, of which all weights are zero; with none saved there is none."""
    folder = RunFolder.open(finished)
    (first, *last), run = said("evaluate", finished)[1], load(folder)
    assert first == "the learner after iteration 3 of 3"
    best = f"the best learner, of iteration {run.best_iteration + 1}"
    assert said("evaluate", finished, "--best") == (0, [best, *last], [])
    still = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), run.best)
    folder.checkpoints.save(3, Saved(run.state, still), meta_of(folder, 0.0, 0))
    assert said("evaluate", finished)[1] == [first, *last]
    status, (iteration, *scores), _ = said("evaluate", finished, "--best")
    assert (status, iteration) == (0, "the best learner, of iteration 1")
    assert scores != last
    folder.checkpoints.save(3, Saved(run.state, still), meta_of(folder, 0.0, None))
    assert said("evaluate", finished, "--best")[::2] == (
        2,
        ["gps: run: no learner was evaluated yet, so that none is the best: leave --best out"],
    )


def test_a_learner_can_be_shown_black_images(said, finished):
    """As many zeros as the image has numbers; a learner that sees none has none to be shown."""
    status, out, errors = said("evaluate", finished, "--black-images")
    assert (status, out) == (2, [])
    assert errors == ["gps: evaluate: --black-images: the learner of reacher sees no images"]
    eyes = Eyes((2, 3, 1), Frozen(lambda images: images.reshape(len(images), -1)[:, :2]))
    network = Network((4,), 2, eyes=eyes)
    policy = NetworkPolicy.start(jax.random.key(0), network, Gaussian(1), 3 + 6)
    o = jax.random.normal(jax.random.key(1), (9,))
    black, other = o.at[3:].set(0.0), o.at[3:].set(1.0)
    closed = policy.with_eyes_closed()
    act = lambda policy, o: policy.act(policy.start_memory(), o, jax.numpy.zeros(1))[1]  # noqa: E731
    np.testing.assert_array_equal(act(closed, o), act(policy, black))
    np.testing.assert_array_equal(act(closed, other), act(policy, black))
    assert act(policy, o) != act(policy, black)


def test_code_that_a_run_names_is_run_only_for_who_trusts_it(said, monkeypatch):
    """It lies where Python finds it; who trains with it has typed its name."""
    sys.modules.pop("owned", None)
    monkeypatch.syspath_prepend(Path.cwd())
    code = "from gps.experiments.lookup import TASKS\nENTRY = TASKS['tiger-door']\nopen('executed', 'a').close()\n"
    Path("owned.py").write_text(code)
    small = [f"--set=guider.{name}" for name in ("learner.network.hidden=[8]", "ppo.environments=4", "ppo.unroll=4")]
    train = ["train", "owned:ENTRY", "--guider", "ppo", "--iterations", "1", "--out", "run", *small]
    assert said(*train)[0] == 0
    Path("executed").unlink()
    for command in ("evaluate", "plot", "report"):
        sys.modules.pop("owned")
        assert said(command, "run") == (
            2,
            [],
            [
                "gps: run/config.toml: run.task = 'owned:ENTRY' is code, which this command would run: where you "
                "trust it, add --trust"
            ],
        )
        assert said("list", "--runs", ".")[1][-1].endswith("owned:ENTRY by ppo, seed 0: 1 of 1 iterations")
        assert not Path("executed").exists()
        assert said(command, "run", "--trust")[0] == 0
        Path("executed").unlink()
    sys.modules.pop("owned")
    status, _, errors = said("train", "tiger-door", "--guider", "ppo", "--resume", "--out", "run", *small)
    assert (status, "run.task = 'owned:ENTRY' is code" in errors[0]) == (2, True)
    assert not Path("executed").exists()
    assert said(*train, "--resume")[0] == 0


def test_an_encoder_is_code_too():
    """Its setting may name a function of one's own."""
    table = {"learner": {"network": {"vision": {"encoder": "owned:see"}}}}
    folder = RunFolder("run", {"run": {"task": "reacher-vision", "guider": "badmm"}, "guider": table})
    with pytest.raises(UntrustedError, match=r"guider\.learner\.network\.vision\.encoder = 'owned:see' is code"):
        _ = folder.experiment
    experiment = RunFolder("run", folder.settings, ("owned:see",)).experiment
    RunFolder.create("made", experiment)
    assert resumable("made", experiment).experiment == experiment  # who asks for it has named it
