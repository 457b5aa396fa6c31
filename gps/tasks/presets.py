"""What guiders take as defaults on each task: tables of settings over their own defaults.

A task has tables for model-free guiders and others for model-based ones. A table, or a key of it, counts for the
guiders that have it; what is under "methods" for the guider of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gps.settings import to_dict

Tables = dict[str, Any]  # "run", "guider" and "methods"

REACHING: Tables = {
    "run": {"iterations": 60, "checkpoint_every": 10},
    "guider": {
        "ppo": {"environments": 64, "unroll": 50, "updates": 4, "learning_rate": 1e-3, "entropy": 0.0},
        "teacher": {"updates": 80},
    },
}

# One gradient step an update: with many, a guider is thrown far by what it has just seen, and the forward KL projects
# a far guider onto a learner that is worse (see gps.guiders.model_free.tabular).
DOORS: Tables = {
    "run": {"iterations": 25, "checkpoint_every": 25},
    "guider": {
        "ppo": {
            "environments": 128,
            "unroll": 8,
            "updates": 20,
            "epochs": 1,
            "minibatches": 1,
            "learning_rate": 1e-2,
            "entropy": 1e-3,
        },
        "penalty": {"start": 1.0},  # with one step an update, alpha has few occasions to grow
        "teacher": {"updates": 200},
    },
    "methods": {
        # it forgets in each update what its guider knew, so that a large step is all that it ever sees
        "gpo-naive": {"ppo": {"learning_rate": 3e-3}},
        # Where guiders of both tigers are at the ends of their region, their mean is what the learner does already: it
        # stalls with the forward KL. The reverse KL takes the mean of logits, which goes on.
        "gpo-clip-supervised": {
            "imitation": {"kl": "reverse"},
            "networks": {"shared": False},
            "region": {"size": 0.05},
        },
        # A guider that knows the tiger is ahead of its learner in the first state already. A price moves it to other
        # states alone; the pull changes what it does in this one.
        "sitt": {"sitt": {"pull": 2.0}},
    },
}

# Unroll, epochs, discount and clipping as the GPO authors have them with memory; more environments, a larger step and a
# looser region (theirs: ratio 1.5), for fewer samples.
MEMORY: Tables = {
    "run": {"iterations": 30, "checkpoint_every": 10},
    "guider": {
        "learner": {"network": {"hidden": [64], "memory": 64}},
        "ppo": {"environments": 64, "unroll": 128, "updates": 4, "minibatches": 4, "learning_rate": 1e-3},
        # What has to be remembered is all that the guider knows better: a learner that remembers can follow it far.
        "networks": {"shared": False},
        "region": {"form": "ratio", "size": 10.0},
        "follow": {"weight": 0.3},
        "teacher": {"updates": 40},
    },
}


# Lava ends nearly every episode of a policy that acts at random, and costs little: without the bonus for cells that are
# new in an episode, and a large entropy, most teachers never come to a goal. With a discount of 0.99 some teachers who
# pay nothing for being ahead find the way round first and stay with it: half of a path is worth less than all of that.
MAZE: Tables = {
    "run": {"iterations": 24, "evaluate_every": 4, "checkpoint_every": 12},
    "guider": {
        "ppo": {
            "environments": 512,
            "unroll": 64,
            "updates": 4,
            "learning_rate": 7e-4,
            "discount": 0.97,
            "entropy": 0.2,
            "reward_scale": 0.1,
            "bonus": 0.03,
        },
        "teacher": {"updates": 64},
    },
}


# Environments of other people's Python step one by one on the host, and an evaluation is 64 episodes or more, twice.
GYMNASIUM: Tables = {
    "run": {"iterations": 40, "evaluate_every": 5, "checkpoint_every": 5},
    "guider": {
        "ppo": {"environments": 32, "unroll": 64, "updates": 4, "learning_rate": 1e-3, "reward_scale": 0.1},
        "teacher": {"updates": 80},
    },
}


# A learner that follows needs few of its images: an eighth of the environments.
FLIGHT: Tables = {
    "run": {"iterations": 48, "evaluate_every": 16, "checkpoint_every": 16},
    "guider": {
        "learner": {"network": {"vision": {"encoder": "strided"}}},
        "ppo": {
            "environments": 256,
            "unroll": 64,
            "updates": 4,
            "minibatches": 16,
            "learning_rate": 1e-3,
            "discount": 0.98,
            "entropy": 0.01,
            "reward_scale": 0.2,
        },
        "sitt": {"price": 0.1, "pull": 0.03, "paired": 0.125},
        "teacher": {"updates": 128},
    },
}


# Whole episodes, as all environments begin them at once. A learner of images takes many small steps: with 4 minibatches
# of alignment in place of 16, and another price, it solved two thirds as much after more passes over the images.
DRAWER: Tables = {
    "run": {"iterations": 20, "evaluate_every": 10, "checkpoint_every": 5},
    "guider": {
        "learner": {"network": {"vision": {"encoder": "strided"}}},
        "ppo": {
            "environments": 128,
            "unroll": 150,
            "updates": 4,
            "minibatches": 16,
            "learning_rate": 1e-3,
            "discount": 0.98,
            "entropy": 0.003,
            "reward_scale": 0.3,
        },
        "sitt": {"price": 0.5, "pull": 0.1, "paired": 0.125, "epochs": 4, "minibatches": 16},
        "teacher": {"updates": 60},
    },
}


def locomotion(
    reward_scale: float = 1.0, discount: float = 0.99, delta: float = 0.1, follow: float = 2.0, entropy: float = 0.01
) -> Tables:
    """The numbers of one Brax task in the GPO paper; its batches (2048 environments) are for a GPU.

    Unrolls are longer here than in the paper (5 or 20 steps), since each unroll of ours is one update and the paper's
    code joins up to 32 of them.

    Args:
        delta: size of the region of GPO-clip.
        follow: weight of the learner's own policy gradient.
    """
    return {
        "run": {"iterations": 50, "evaluate_every": 5, "checkpoint_every": 10},
        "guider": {
            "learner": {"network": {"hidden": [128, 128], "activation": "silu"}},
            "ppo": {
                "environments": 256,
                "unroll": 20,
                "updates": 4,
                "minibatches": 16,
                "gradient_norm": 1.0,
                "clip": 0.3,
                "reward_scale": reward_scale,
                "discount": discount,
                "entropy": entropy,
            },
            "region": {"size": delta},
            "follow": {"weight": follow},
            "teacher": {"updates": 80},
        },
    }


# Tables for model-based guiders.

# Controllers that find their own way up end in longer swings than are needed, each in others. Upright, a small error of
# the learner grows: it has to match the feedback, and is trained for long.
SWINGING: Tables = {
    "run": {"iterations": 10},
    "guider": {
        "start": {"controller": "ilqr", "restarts": 32, "spread": 0.01},
        "sampling": {"samples": 3, "std_floor": 0.1},
        "trust_region": {"decay": 0.85},
        "learner": {"sobolev": 1.0, "training": {"updates": 400}},
    },
}

# Plans take longer than a cart-pole's: fewer of them, and fewer iterations.
ACROBOT: Tables = {
    **SWINGING,
    "guider": {**SWINGING["guider"], "start": {**SWINGING["guider"]["start"], "restarts": 8, "iterations": 60}},
}

# Around posts there are ways on both sides.
AROUND: Tables = {
    "run": {"iterations": 8},
    "guider": {"start": {"controller": "ilqr", "restarts": 1}, "sampling": {"samples": 3}},
}

# A contact that a step makes or breaks is in no local model: small steps, and samples on both sides of it.
PUSHING: Tables = {
    "run": {"iterations": 16},
    "guider": {
        "start": {"spread": 0.05},
        "sampling": {"samples": 5},
        "trust_region": {"kl_step": 0.2},
        "learner": {"sobolev": 1.0},
    },
}

# Its controllers start along plans that walk, and step by little: what is hard is to imitate them without a fall.
WALKING: Tables = {
    "run": {"iterations": 8},
    "guider": {
        "start": {"controller": "ilqr", "restarts": 1, "iterations": 50, "spread": 0.005},
        "sampling": {"samples": 8, "by": "controllers"},
        "trust_region": {"kl_step": 0.02},
        "learner": {"network": {"hidden": [128, 128]}, "training": {"updates": 1500}},
    },
}

# Path integrals learn from the differences between samples of a condition, and need more of them. A plan that looks a
# second ahead is enough, and costs a third of one that looks to the end; on the arm's own model two iterations will do.
OTHERWISE: Tables = {
    **{name: {"sampling": {"samples": count}} for name, count in (("pi2", 16), ("pigps", 16), ("pilqr", 8))},
    "plato": {"sampling": {"samples": 1}, "lookahead": {"horizon": 20, "iterations": 2}},
}

# Through contact a plan of few iterations changes from step to step, and nobody could imitate it.
THROUGH_CONTACT: Tables = {
    **OTHERWISE,
    "plato": {
        "start": {"controller": "auto"},
        "sampling": {"samples": 1},
        "lookahead": {"horizon": 25, "iterations": 8, "closeness": 0.3},
    },
}

ARM: Tables = {
    "run": {"iterations": 8},
    "guider": {"sampling": {"samples": 3}},
    "methods": OTHERWISE,
}

PEG: Tables = {
    "run": {"iterations": 9},
    "guider": {"sampling": {"samples": 5}, "start": {"spread": 0.1}},
    "methods": THROUGH_CONTACT,
}

DOOR: Tables = {
    "run": {"iterations": 9},
    "guider": {"sampling": {"samples": 3}, "start": {"spread": 0.1}, "learner": {"sobolev": 1.0}},
    "methods": THROUGH_CONTACT,
}


def remembering(tables: Tables, memory: int = 64) -> Tables:
    """The same with a learner that has a memory (a GRU of so many units)."""
    guider = tables.get("guider", {})
    learner = guider.get("learner", {})
    network = {**learner.get("network", {}), "memory": memory}
    return {**tables, "guider": {**guider, "learner": {**learner, "network": network}}}


def seeing(tables: Tables) -> Tables:
    """The same with a learner of images, each of which takes long to learn from: small batches of them."""
    guider = tables.get("guider", {})
    learner = guider.get("learner", {})
    training = {"batch_size": 64, **learner.get("training", {})}
    return {**tables, "guider": {**guider, "learner": {**learner, "training": training}}}


BRAX: dict[str, Tables] = {  # by Brax's names
    "ant": locomotion(reward_scale=0.1, discount=0.97, delta=0.3),
    "halfcheetah": locomotion(entropy=0.001),
    "humanoid": locomotion(reward_scale=0.1),
    "humanoidstandup": locomotion(reward_scale=0.1, delta=0.3, follow=3.0),
    # the paper: reward_scale 1, follow 0
    "inverted_double_pendulum": locomotion(reward_scale=0.1, discount=0.997),
    "swimmer": locomotion(discount=0.997, delta=0.3, follow=3.0),
    "walker2d": locomotion(),
}


def of(preset: Mapping[str, Any], guider: str, defaults: Any) -> Tables:
    """The tables "run" and "guider" of a preset, as far as a guider with these defaults has them."""
    has = {name: getattr(defaults, name) for name in preset.get("guider", {}) if hasattr(defaults, name)}
    known = {
        name: {key: value for key, value in preset["guider"][name].items() if key in to_dict(table)}
        for name, table in has.items()
    }
    for name, table in preset.get("methods", {}).get(guider, {}).items():
        known[name] = {**known.get(name, {}), **table}
    return {"run": dict(preset.get("run", {})), "guider": known}
