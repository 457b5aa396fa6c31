"""The one learner: every guider teaches the same kind of policy, with the same settings and first parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jaxtyping import PRNGKeyArray

from gps.settings import check_at_least, check_one_of
from gps.tasks.control_task import is_control
from gps.tasks.task import Environment
from policies.distributions import Categorical, Distribution, Gaussian, TanhGaussian
from policies.network import ACTIVATIONS, Network, NetworkPolicy

_CONTINUOUS: dict[str, Callable[[int], Distribution]] = {"gaussian": Gaussian, "tanh-gaussian": TanhGaussian}
DISTRIBUTIONS = ("auto", *_CONTINUOUS, "categorical")


@dataclass(frozen=True)
class NetworkSettings:
    """The learner's network; guiders and critics that are networks have the same form."""

    hidden: tuple[int, ...] = (64, 64)  # widths of the dense layers
    memory: int = 0  # width of the GRU that follows them; 0 is feed-forward
    activation: str = "tanh"  # "tanh", "silu" or "relu"
    # Of actions: "gaussian" (one std for all observations, clipped to [-1, 1]), "tanh-gaussian", "categorical". "auto"
    # is "categorical" for choices, "gaussian" for a ControlTask and "tanh-gaussian" (GPO's paper) for other tasks.
    distribution: str = "auto"

    def __post_init__(self):
        check_one_of(self, "activation", ACTIVATIONS)
        check_one_of(self, "distribution", DISTRIBUTIONS)
        check_at_least(self, 0, "memory")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must name at least one positive width, not {self.hidden}")


@dataclass(frozen=True)
class LearnerSettings:
    """What every guider can set of the learner."""

    network: NetworkSettings = field(default_factory=NetworkSettings)


def choose_distribution(name: str, task: Environment) -> Distribution:
    """The distribution of that name over the task's actions.

    Errors:
        ValueError where the task has no such actions.
    """
    actions = task.actions
    if name == "auto":
        continuous = "gaussian" if is_control(task) else "tanh-gaussian"
        name = "categorical" if actions.discrete else continuous
    if actions.discrete != (name == "categorical"):
        kind = f"{actions.size} choices" if actions.discrete else f"{actions.size} numbers"
        fitting = "'categorical'" if actions.discrete else "'gaussian' or 'tanh-gaussian'"
        raise ValueError(
            f"guider.learner.network.distribution = {name!r} does not fit {task.name}, whose actions are {kind}: "
            f"take {fitting}"
        )
    return Categorical(actions.size) if actions.discrete else _CONTINUOUS[name](actions.size)


def make_network(settings: NetworkSettings, outputs: int, free: int = 0, head_scale: float = 0.01) -> Network:
    """A network of the settings' form."""
    return Network(settings.hidden, outputs, settings.memory, settings.activation, free, head_scale)


def start_policy(key: PRNGKeyArray, task: Environment, settings: NetworkSettings) -> NetworkPolicy:
    """A fresh learner; every guider gives it the first half of the key that its own `init` splits.

    Errors:
        As in `choose_distribution`.
    """
    distribution = choose_distribution(settings.distribution, task)
    network = make_network(settings, distribution.outputs, distribution.free)
    return NetworkPolicy.start(key, network, distribution, task.observation_size)
