"""The model-free methods, a row each: what `gps list` says of it, its terms, and its tables of settings.

    improve    L1: PPO on the guider mu, its ratio clipped to the policy that collected
    teach      L2: KL(stop(mu), pi); the learner pi imitates the guider
    pull_back  L3: KL(mu, stop(pi)); the guider is held to what the learner can imitate
    follow     L4: PPO on the learner itself, with the same advantages
    imitate    KL(stop(mu), imitator); a third policy does nothing but imitate
    informed   KL(mu, stop(proxy)); the guider is held to what a proxy of the learner does, which sees everything
    align      the learner's features and outputs move towards the guider's
    mirror     the proxy's move towards the learner's

Importing this module imports no jax, so that names can be listed quickly.

Source:
    Li, Xie, Lu, "Guided Policy Optimization under Partial Observability", arXiv 2505.15418. Baselines as that paper
    names them: asymmetric critics (Pinto et al., RSS 2018), A2D (Warrington et al., ICML 2021), ADVISOR (Weihs et
    al., NeurIPS 2021), DAgger (Ross et al., AISTATS 2011), ELF (Walsman et al., ICLR 2023). Student-informed teachers:
    Messikommer, Xing, Aljalbout, Scaramuzza, ICLR 2025, arXiv 2412.09149.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One row; `gps.guiders.model_free.guider` does what it says."""

    about: str  # its line in `gps list`
    terms: tuple[str, ...]  # of its loss, besides those of critics
    # Besides "learner" and "ppo", which all methods have; see `gps.guiders.model_free.settings.TABLES`. "imitation":
    # how the distance of guider and learner is measured. "teacher": the guider is trained first and alone, then frozen.
    # "penalty" and "region": how a guider is pulled back. "advice": teach and follow are weighted by how well an
    # imitator does. "sitt": each update ends with a phase that aligns the learner, and a proxy of it, with the guider.
    tables: tuple[str, ...] = ()
    collects: str = "guider"  # who acts: "guider", "learner", or "halves" (learner and imitator, half of all each)
    critic: str = "guider"  # the critic sees what the "guider" sees, or what the "learner" sees
    backtracks: bool = False  # each update begins with the guider as a copy of the learner
    shaped: bool = False  # the learner's reward is shaped by the value of the imitator

    @property
    def guided(self) -> bool:
        """Whether there is a guider."""
        return "improve" in self.terms or self.teacher_first

    @property
    def teacher_first(self) -> bool:
        """Whether the guider is trained first and alone."""
        return "teacher" in self.tables

    @property
    def aligns(self) -> bool:
        """Whether learner and proxy are aligned with the guider in a phase of their own."""
        return "sitt" in self.tables

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies that there are."""
        imitates = "imitate" in self.terms
        there = {"guider": self.guided, "learner": True, "imitator": imitates, "proxy": self.aligns}
        return tuple(name for name, is_there in there.items() if is_there)

    @property
    def critics(self) -> tuple[str, ...]:
        """The value functions: of the policy gradients, of a teacher trained first, and of an imitator."""
        there = {
            "critic": "improve" in self.terms or "follow" in self.terms,
            "teacher_critic": self.teacher_first,
            "imitator_critic": self.shaped,
        }
        return tuple(name for name, is_there in there.items() if is_there)


METHODS = {
    "gpo-naive": Method(
        "GPO: the guider improves by PPO, the learner imitates, the guider starts anew as the learner",
        terms=("improve", "teach"),
        tables=("imitation",),
        backtracks=True,
    ),
    "gpo-penalty": Method(
        "GPO: guider and learner improve by PPO, a penalty holds the guider to the learner",
        terms=("improve", "teach", "pull_back", "follow"),
        tables=("imitation", "networks", "penalty"),
    ),
    "gpo-clip": Method(
        "GPO: guider and learner improve by PPO, the guider is clipped to a region around the learner",
        terms=("improve", "teach", "pull_back", "follow"),
        tables=("imitation", "networks", "region", "follow"),
    ),
    "gpo-clip-supervised": Method(
        "gpo-clip whose learner imitates and does nothing else",
        terms=("improve", "teach", "pull_back"),
        tables=("imitation", "networks", "region"),
    ),
    "gpo-ablation": Method(
        "gpo-penalty whose learner does not imitate",
        terms=("improve", "pull_back", "follow"),
        tables=("imitation", "networks", "penalty"),
    ),
    "ppo": Method(
        "PPO on what the learner sees; no guider",
        terms=("follow",),
        collects="learner",
        critic="learner",
    ),
    "ppo-asym": Method(
        "PPO on what the learner sees, with a value function that sees everything",
        terms=("follow",),
        collects="learner",
    ),
    "ppo-bc": Method(
        "the guider improves by PPO and acts, the learner imitates it",
        terms=("improve", "teach"),
        tables=("imitation", "networks"),
    ),
    "a2d": Method(
        "the guider improves by PPO while the learner acts and imitates it",
        terms=("improve", "teach"),
        tables=("imitation", "networks"),
        collects="learner",
        critic="learner",
    ),
    "advisor-co": Method(
        "ADVISOR with a guider that learns along: imitation where the learner can, PPO where it can not",
        terms=("improve", "teach", "follow", "imitate"),
        tables=("imitation", "advice"),
        collects="learner",
        critic="learner",
    ),
    "advisor": Method(
        "ADVISOR with a teacher that was trained first",
        terms=("teach", "follow", "imitate"),
        tables=("imitation", "teacher", "advice"),
        collects="learner",
        critic="learner",
    ),
    "dagger": Method(
        "DAgger: a teacher that was trained first labels what the learner visits",
        terms=("teach",),
        tables=("imitation", "teacher"),
        collects="learner",
    ),
    "bc": Method(
        "behaviour cloning of a teacher that was trained first",
        terms=("teach",),
        tables=("imitation", "teacher"),
    ),
    "elf": Method(
        "ELF: an imitator's value shapes the reward of a learner that explores",
        terms=("follow", "imitate"),
        tables=("imitation", "teacher"),
        collects="halves",
        critic="learner",
        shaped=True,
    ),
    "sitt": Method(
        "student-informed teacher: PPO whose reward is lower where the learner, which sees less, could not follow",
        terms=("improve", "informed"),
        tables=("sitt",),
    ),
}
