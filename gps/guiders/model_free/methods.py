"""What distinguishes the model-free methods from each other: who is trained how, who acts, and what the critic sees.

    L1  improve    PPO on the guider mu: clipped ratio to the policy that acted
    L2  teach      KL(stop(mu), pi): the learner imitates
    L3  pull back  KL(mu, stop(pi)): the guider is held to what the learner can imitate
    L4  follow     PPO on the learner pi itself, with the same advantages

Source:
    Li, Xie, Lu, "Guided Policy Optimization under Partial Observability", arXiv 2505.15418. Baselines as that paper
    names them: asymmetric critics (Pinto et al., RSS 2018), A2D (Warrington et al., ICML 2021), ADVISOR (Weihs et
    al., NeurIPS 2021), DAgger (Ross et al., AISTATS 2011), ELF (Walsman et al., ICLR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One method; `gps.guiders.model_free.guider` does what it says."""

    acts: str = "guider"  # who collects: "guider", "learner", or "halves" (learner and imitator, half of all each)
    guider: str = "improved"  # "improved" by L1, "frozen" after it was trained first and alone, or "none"
    taught: bool = True  # L2
    follows: bool = False  # L4
    # How the guider is held: "" (not at all), "backtrack" (it starts each update as the learner), "penalty", "clip".
    pull: str = ""
    critic: str = "guider"  # the critic sees what the "guider" sees, or the "learner"
    advised: bool = False  # L2 and L4 weighted by how well an imitator can do what the guider does
    shaped: bool = False  # the learner's reward is shaped by the value of an imitator

    @property
    def roles(self) -> tuple[str, ...]:
        """The policies that there are."""
        guider = () if self.guider == "none" else ("guider",)
        return (*guider, "learner", *(("imitator",) if self.advised or self.shaped else ()))

    @property
    def critics(self) -> tuple[str, ...]:
        """The value functions: of the policy gradients, of a teacher trained first, and of an imitator."""
        own = ("critic",) if self.guider == "improved" or self.follows else ()
        teacher = ("teacher_critic",) if self.guider == "frozen" else ()
        return (*own, *teacher, *(("imitator_critic",) if self.shaped else ()))


METHODS = {
    "gpo-naive": Method(pull="backtrack"),
    "gpo-penalty": Method(follows=True, pull="penalty"),
    "gpo-clip": Method(follows=True, pull="clip"),
    "gpo-clip-supervised": Method(pull="clip"),
    "gpo-ablation": Method(taught=False, follows=True, pull="penalty"),
    "ppo": Method(acts="learner", guider="none", taught=False, follows=True, critic="learner"),
    "ppo-asym": Method(acts="learner", guider="none", taught=False, follows=True),
    "ppo-bc": Method(),
    "a2d": Method(acts="learner", critic="learner"),
    "advisor-co": Method(acts="learner", follows=True, critic="learner", advised=True),
    "advisor": Method(acts="learner", guider="frozen", follows=True, critic="learner", advised=True),
    "dagger": Method(acts="learner", guider="frozen"),
    "bc": Method(guider="frozen"),
    "elf": Method(acts="halves", guider="frozen", taught=False, follows=True, critic="learner", shaped=True),
}
