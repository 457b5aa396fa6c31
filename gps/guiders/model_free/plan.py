"""What the updates of a model-free method do, in which order, and over sequences of which length."""

from __future__ import annotations

from dataclasses import dataclass

from gps.guiders.model_free.methods import Method
from gps.guiders.model_free.settings import PpoSettings, SittSettings

Terms = tuple[str, ...]  # of a loss; see `gps.guiders.model_free.losses.Objective.total`


@dataclass(frozen=True)
class Plan:
    """What an update does."""

    collects: str  # "guider", "learner" or "halves"
    losses: tuple[Terms, ...]  # minimised one after the other, each for all its epochs
    critic: str  # whose advantages the policy gradients take; "" where there is none


ALIGN: Terms = ("align", "mirror")
TEACHER_FIRST = Plan("guider", (("improve", "teacher_critic"),), "teacher_critic")


def plan_of(method: Method) -> Plan:
    """The updates of a method, once a teacher that is trained first is trained."""
    critics = tuple(critic for critic in method.critics if critic != "teacher_critic")
    losses = ((*method.terms, *critics),)
    if method.backtracks:  # the learner imitates a guider that has had all its epochs
        losses = (("improve", *critics), ("teach",))
    if method.aligns:
        losses = (*losses, ALIGN)
    return Plan(method.collects, losses, "critic" if "critic" in critics else "")


def window_length(memory: int, ppo: PpoSettings) -> int:
    """Length of the sequences that gradients are taken over.

    Errors:
        ValueError where unroll, window, environments and minibatches do not fit each other.
    """
    if ppo.window and not memory:
        raise ValueError(
            f"guider.ppo.window = {ppo.window} is for networks with a memory: set guider.learner.network.memory, or "
            "take window = 0"
        )
    window = (ppo.window or ppo.unroll) if memory else 1
    if ppo.unroll % window:
        raise ValueError(
            f"guider.ppo.unroll = {ppo.unroll} is no multiple of guider.ppo.window = {window}: take one of "
            f"{_divisors(ppo.unroll)} for the window"
        )
    sequences = ppo.environments * ppo.unroll // window
    if sequences % ppo.minibatches:
        parts = f"{ppo.environments} environments x {ppo.unroll} steps in sequences of {window}"
        raise ValueError(
            f"guider.ppo.minibatches = {ppo.minibatches} does not divide the {sequences} sequences of an update "
            f"({parts}): take one of {_divisors(sequences)}"
        )
    return window


def paired_count(sitt: SittSettings, ppo: PpoSettings, window: int) -> int:
    """How many environments the learner sees the steps of: the first ones.

    Errors:
        ValueError where there is none, or their sequences do not fit the minibatches.
    """
    count = round(sitt.paired * ppo.environments)
    if not count:
        raise ValueError(
            f"guider.sitt.paired = {sitt.paired} of {ppo.environments} environments is none: take at least "
            f"{1 / ppo.environments:.3g}"
        )
    sequences = count * ppo.unroll // window
    if sequences % sitt.minibatches:
        raise ValueError(
            f"guider.sitt.minibatches = {sitt.minibatches} does not divide the {sequences} sequences that the learner "
            f"sees ({count} environments x {ppo.unroll} steps in sequences of {window}): take one of "
            f"{_divisors(sequences)}"
        )
    return count


def _divisors(number: int) -> str:
    """Those of a number, with those in the middle left out where there are many."""
    divisors = [str(i) for i in range(1, number + 1) if number % i == 0]
    return ", ".join(divisors if len(divisors) < 12 else [*divisors[:8], "...", divisors[-1]])
