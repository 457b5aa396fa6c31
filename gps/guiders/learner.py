"""The one learner: every guider teaches the same kind of policy, with the same settings and first parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import flax.linen as nn
import jax
from jaxtyping import PRNGKeyArray

from gps.entry import imported
from gps.settings import SettingsError, check_at_least, check_one_of
from gps.tasks.control_task import is_control
from gps.tasks.images import image_shape
from gps.tasks.task import Environment
from policies.distributions import Categorical, Distribution, Gaussian, TanhGaussian
from policies.network import ACTIVATIONS, Network, NetworkPolicy
from policies.vision import Eyes, Frozen, Points, Shape, Strided

_CONTINUOUS: dict[str, Callable[[int], Distribution]] = {"gaussian": Gaussian, "tanh-gaussian": TanhGaussian}
DISTRIBUTIONS = ("auto", *_CONTINUOUS, "categorical")


ENCODERS = ("points", "strided")


@dataclass(frozen=True)
class VisionSettings:
    """What learns to see, where the learner's observation ends with an image; see `policies.vision`."""

    encoder: str = "points"  # "points", "strided", or a function of one's own, which is not trained: "module:function"
    channels: tuple[int, ...] = (8, 16)  # of the convolutions
    features: int = 64  # of "strided"

    def __post_init__(self):
        module, colon, function = self.encoder.partition(":")
        if not colon:
            check_one_of(self, "encoder", ENCODERS)
        elif not (function and all(part.isidentifier() for part in module.split("."))):
            raise ValueError(
                f"encoder must be one of {', '.join(ENCODERS)}, or 'module:function', not {self.encoder!r}"
            )
        check_at_least(self, 1, "features")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels must name at least one positive number, not {self.channels}")


@dataclass(frozen=True)
class NetworkSettings:
    """The learner's network; guiders and critics that are networks have the same form."""

    hidden: tuple[int, ...] = (64, 64)  # widths of the dense layers
    memory: int = 0  # width of the GRU that follows them; 0 is feed-forward
    activation: str = "tanh"  # "tanh", "silu" or "relu"
    # Of actions: "gaussian" (one std for all observations, clipped to [-1, 1]), "tanh-gaussian", "categorical". "auto"
    # is "categorical" for choices, "gaussian" for a ControlTask and "tanh-gaussian" (GPO's paper) for other tasks.
    distribution: str = "auto"
    vision: VisionSettings = field(default_factory=VisionSettings)

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


def make_network(
    settings: NetworkSettings, outputs: int, free: int = 0, head_scale: float = 0.01, image: Shape | None = None
) -> Network:
    """A network of the settings' form.

    Args:
        image: the shape of the image at the end of what it sees, if there is one.
    """
    eyes = Eyes(image, _encoder(settings.vision, image)) if image else None
    return Network(settings.hidden, outputs, settings.memory, settings.activation, free, head_scale, eyes)


def _encoder(settings: VisionSettings, image: Shape) -> nn.Module:
    """What makes features of images."""
    if settings.encoder == "points":
        return Points(settings.channels)
    if settings.encoder == "strided":
        return Strided(settings.channels, settings.features)
    where = f"guider.learner.network.vision.encoder = {settings.encoder!r}"
    try:
        function = imported(settings.encoder)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"{where}: {error}; it must be 'module:function', the module's folder in PYTHONPATH"
        ) from error
    try:
        features = jax.eval_shape(function, jax.ShapeDtypeStruct((3, *image), float))
    except Exception as error:
        raise SettingsError(f"{where} fails with images {(3, *image)}: {error}") from error
    if not (hasattr(features, "shape") and features.ndim == 2 and len(features) == 3):
        raise SettingsError(f"{where} must make numbers (3, n) of images {(3, *image)}, not {features}")
    return Frozen(function)


def start_policy(key: PRNGKeyArray, task: Environment, settings: NetworkSettings) -> NetworkPolicy:
    """A fresh learner; every guider gives it the first half of the key that its own `init` splits.

    Errors:
        As in `choose_distribution`.
    """
    distribution = choose_distribution(settings.distribution, task)
    network = make_network(settings, distribution.outputs, distribution.free, image=image_shape(task))
    return NetworkPolicy.start(key, network, distribution, task.observation_size)
