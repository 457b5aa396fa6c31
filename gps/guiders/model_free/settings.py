"""Settings of the model-free guiders, in tables: each method has those that it uses, and no others."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass
from pathlib import Path

from gps.guiders.learner import LearnerSettings
from gps.guiders.model_free.methods import METHODS
from gps.settings import check_at_least, check_one_of, check_positive


@dataclass(frozen=True)
class PpoSettings:
    """The core that all methods share: how samples are collected and how a policy gradient is taken."""

    environments: int = 64  # stepped side by side
    unroll: int = 64  # steps of each in one update
    window: int = 0  # steps that gradients pass through a memory; 0 is the whole unroll. Without memory it is 1.
    updates: int = 8  # collect-and-update pairs in one iteration of a run, which is one row of its metrics
    epochs: int = 4  # passes over the samples of an update
    minibatches: int = 4  # gradient steps in one pass
    learning_rate: float = 3e-4  # of Adam
    gradient_norm: float = 0.5  # largest global norm of a gradient
    discount: float = 0.99  # of rewards, per step
    trace: float = 0.95  # lambda of generalised advantage estimation
    clip: float = 0.2  # of the ratio to the policy that acted
    entropy: float = 0.01  # weight of the entropy bonus
    reward_scale: float = 1.0  # multiplies rewards in training, not in what is reported
    # Added to the reward of a step that comes to something new in its episode, as the task's metric "novel" says; in
    # training alone, and until half of the episodes succeed (its metric "success").
    bonus: float = 0.0
    normalize: bool = True  # observations by their running mean and deviation, for each role
    diverged: float = 0.2  # largest share of an iteration's steps that may diverge; beyond it the run stops

    def __post_init__(self):
        check_at_least(self, 1, "environments", "unroll", "updates", "epochs", "minibatches")
        check_at_least(self, 0, "window", "entropy", "bonus")
        check_positive(self, "learning_rate", "gradient_norm", "clip", "reward_scale")
        if not self.clip < 1:
            raise ValueError(f"clip must be below 1, as ratios are clipped from 1 - clip, not {self.clip}")
        for name in ("discount", "trace", "diverged"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class ImitationSettings:
    """How the distance between guider and learner is measured: in teaching and in pulling back."""

    kl: str = "forward"  # "forward" is KL(guider, learner), the paper's; "reverse" is KL(learner, guider)
    reduction: str = "mean"  # over the dimensions of an action: "mean", as the paper's code does, or "sum"

    def __post_init__(self):
        check_one_of(self, "kl", ("forward", "reverse"))
        check_one_of(self, "reduction", ("mean", "sum"))


@dataclass(frozen=True)
class NetworksSettings:
    """Of methods whose guider and learner can be one network."""

    shared: bool = True  # guider and learner are one network that is told who it is; False: one for each


@dataclass(frozen=True)
class PenaltySettings:
    """The weight alpha of the pull back, and of the learner's own policy gradient, follows the distance."""

    target: float = 1e-3  # nats, the distance to hold; alpha moves by 1.2 where it is off by more than 1.2
    start: float = 0.1  # alpha once the distance is first above the target
    largest: float = 10.0  # alpha never rises above

    def __post_init__(self):
        check_positive(self, "target", "start", "largest")
        if self.start > self.largest:
            raise ValueError(f"start must be at most largest = {self.largest}, not {self.start}")


@dataclass(frozen=True)
class RegionSettings:
    """Where the guider may go: ratios mu / pi inside the region; outside it is clipped and pulled back."""

    form: str = "delta"  # "delta": from 1 - size to 1 + size; "ratio": from 1 / size to size
    size: float = 0.1  # above 0 and below 1 for "delta", above 1 for "ratio"

    def __post_init__(self):
        check_one_of(self, "form", ("delta", "ratio"))
        if self.form == "delta" and not 0 < self.size < 1:
            raise ValueError(f"size must be between 0 and 1 for form = 'delta', not {self.size}")
        if self.form == "ratio" and not 1 < self.size < float("inf"):
            raise ValueError(f"size must be above 1 for form = 'ratio', not {self.size}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest ratio inside the region."""
        return (1 / self.size, self.size) if self.form == "ratio" else (1 - self.size, 1 + self.size)


@dataclass(frozen=True)
class FollowSettings:
    """The learner's own policy gradient in GPO-clip."""

    weight: float = 1.0  # alpha_RL of the paper, which takes 0, 2 or 3

    def __post_init__(self):
        check_at_least(self, 0, "weight")


@dataclass(frozen=True)
class TeacherSettings:
    """The privileged teacher that is trained first, by PPO on what the guider sees."""

    updates: int = 200  # for which it is trained before the learner begins; its steps count
    run: str = ""  # folder of another run whose guider is taken instead, at the start and without any updates
    shared_head: bool = False  # the learner acts by the teacher's head, which stays as it is, and learns features alone

    def __post_init__(self):
        check_at_least(self, 1, "updates")
        if self.run:  # so that the run can be read from anywhere
            object.__setattr__(self, "run", str(Path(self.run).absolute()))


@dataclass(frozen=True)
class AdviceSettings:
    """ADVISOR: imitation weighs exp(-sharpness * KL(guider, imitator)), the policy gradient the rest."""

    sharpness: float = 10.0  # per nat

    def __post_init__(self):
        check_at_least(self, 0, "sharpness")


@dataclass(frozen=True)
class SittSettings:
    """Student-informed teacher training: how the guider is held to what the learner can do, and how that follows it."""

    price: float = 0.5  # lambda: reward that a nat of KL(guider, proxy) costs in a step, before any reward scale
    pull: float = 0.01  # c: weight, beside PPO's loss, of the same KL; its gradient is for the guider's encoder alone
    pull_on: str = "outputs"  # "outputs": that KL; "features": their mean absolute difference, as the authors' code
    against: str = "proxy"  # whom the KL is measured to: "proxy", or the "learner", which then has to see every step
    paired: float = 0.25  # share of the environments whose steps the learner sees
    shared_head: bool = True  # guider, learner and proxy act by one head, which is trained as the guider's
    mirror_outputs: bool = True  # the proxy follows the learner's outputs beside its features, as in the authors' code
    epochs: int = 8  # of alignment in an update
    minibatches: int = 4  # gradient steps in one of them
    learning_rate: float = 1e-3  # of Adam in alignment

    def __post_init__(self):
        check_at_least(self, 0, "price", "pull")
        check_one_of(self, "pull_on", ("outputs", "features"))
        check_one_of(self, "against", ("proxy", "learner"))
        if not 0 < self.paired <= 1:
            raise ValueError(f"paired must be a share of the environments, above 0 and at most 1, not {self.paired}")
        check_at_least(self, 1, "epochs", "minibatches")
        check_positive(self, "learning_rate")


TABLES = {
    "learner": LearnerSettings,
    "ppo": PpoSettings,
    "imitation": ImitationSettings,
    "networks": NetworksSettings,
    "penalty": PenaltySettings,
    "region": RegionSettings,
    "follow": FollowSettings,
    "teacher": TeacherSettings,
    "advice": AdviceSettings,
    "sitt": SittSettings,
}


def _settings_of(name: str) -> type:
    """The settings of a method: a frozen dataclass with a field for each of its tables."""
    tables = ("learner", "ppo", *METHODS[name].tables)
    fields = [(table, TABLES[table], field(default_factory=TABLES[table])) for table in tables]
    return make_dataclass(f"{name.title().replace('-', '')}Settings", fields, frozen=True)


SETTINGS = {name: _settings_of(name) for name in METHODS}  # types by method
