"""What an update of a model-free method does, in which order, and over sequences of which length."""

from __future__ import annotations

from dataclasses import dataclass

from gps.guiders.methods import Method
from gps.guiders.model_free_settings import PpoSettings

Terms = tuple[str, ...]  # of a loss; see `gps.guiders.losses.Objective.total`


@dataclass(frozen=True)
class Stage:
    """Some updates in a row that do the same."""

    acts: str  # "guider", "learner" or "halves"
    phases: tuple[Terms, ...]  # minimised one after the other, each for all epochs
    critic: str  # whose advantages the policy gradients take; "" where there is none


TEACHER_FIRST = Stage("guider", (("improve", "teacher_critic"),), "teacher_critic")


def window_length(memory: int, ppo: PpoSettings) -> int:
    """Length of the sequences that gradients are taken over.

    Errors:
        ValueError where unroll, window, environments and minibatches do not fit each other.
    """
    if ppo.window and not memory:
        raise ValueError(f"ppo.window = {ppo.window} is for networks with a memory: set network.memory, or window = 0")
    window = (ppo.window or ppo.unroll) if memory else 1
    if ppo.unroll % window:
        raise ValueError(
            f"ppo.unroll = {ppo.unroll} is no multiple of ppo.window = {window}: take a window that divides the unroll"
        )
    sequences = ppo.environments * ppo.unroll // window
    if sequences % ppo.minibatches:
        parts = f"{ppo.environments} environments x {ppo.unroll} steps in sequences of {window}"
        raise ValueError(
            f"ppo.minibatches = {ppo.minibatches} does not divide the {sequences} sequences of an update ({parts})"
        )
    return window


def main_stage(method: Method) -> Stage:
    """What a method does, once a teacher that is trained first is trained."""
    critics = tuple(critic for critic in method.critics if critic != "teacher_critic")
    improve = ("improve",) if method.guider == "improved" else ()
    if method.pull == "backtrack":
        return Stage(method.acts, ((*improve, *critics), ("teach",)), "critic")
    terms = [
        *improve,
        *(("teach",) if method.taught else ()),
        *(("pull_back",) if method.pull else ()),
        *(("follow",) if method.follows else ()),
        *(("imitate",) if "imitator" in method.roles else ()),
        *critics,
    ]
    return Stage(method.acts, (tuple(terms),), "critic" if "critic" in critics else "")
