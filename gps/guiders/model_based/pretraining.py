"""A learner's eyes are trained before it imitates anything: to tell where the thing is that the task is about.

    minimise  E |W f(image) + b - place|^2  over the encoder f, W and b, with places standardised

Images are of states that the first samples came through, each with a context drawn from the box of those that are
trained on, so that the thing is seen in places where no episode has it. Afterwards W and b are dropped, and the
learner's first layer makes of the features what it will; its encoder goes on to learn with it.

Source:
    Levine, Finn, Darrell and Abbeel, "End-to-end training of deep visuomotor policies", JMLR 2016, section 5.2.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from gps.guiders.model_based.samples import Samples
from gps.guiders.model_based.settings import PretrainingSettings, TaughtLearnerSettings
from gps.pytrees import all_finite, select
from gps.tasks.control_task import ControlTask
from policies.network import NetworkPolicy

_BATCH = 64


def require_sight(task: ControlTask, settings: TaughtLearnerSettings) -> None:
    """Raise ValueError where eyes are to be trained that there are not, or that nothing trains."""
    why_not = ""
    if not hasattr(task, "sight"):
        why_not = f"{task.name} shows nothing that is to be found in an image"
    elif ":" in settings.network.vision.encoder:
        why_not = f"nothing trains the encoder {settings.network.vision.encoder!r}"
    if settings.pretraining.updates and why_not:
        raise ValueError(f"guider.learner.pretraining.updates = {settings.pretraining.updates}: {why_not}; set it to 0")


def pretrained(
    policy: NetworkPolicy, task: Any, samples: Samples, settings: PretrainingSettings, key: PRNGKeyArray
) -> NetworkPolicy:
    """The policy with eyes that know the place; where training them fails they stay what they were.

    Args:
        task: has `sight(x, context)`, the place (3) in m.
    """
    choosing, drawing, starting, order = jax.random.split(key, 4)
    xs = jax.random.choice(choosing, samples.xs.reshape(-1, samples.xs.shape[-1]), (settings.images,))
    low, high = task.train_contexts.min(0), task.train_contexts.max(0)
    contexts = jax.random.uniform(drawing, (settings.images, len(low)), low.dtype, low, high)
    inputs = policy.normalizer(jax.vmap(task.observe, in_axes=(0, 0, None))(xs, contexts, jnp.zeros(0)))
    places = jax.vmap(task.sight)(xs, contexts)
    places = (places - places.mean(0)) / jnp.maximum(places.std(0), 1e-6)

    eyes, layers = policy.network.eyes, policy.params["params"]
    assert eyes is not None

    def features(own: Any, inputs: Float[Array, "B n"]) -> Float[Array, "B f"]:
        seen = cast(Array, eyes.apply({"params": own}, inputs))
        return seen[:, len(policy.normalizer.mean) :]

    count = jax.eval_shape(features, layers["eyes"], inputs[:1]).shape[1]
    weights = jax.random.normal(starting, (count, 3)) / jnp.sqrt(count)
    adam = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.updates, 0.1))

    def loss(params, batch):
        own, weights, bias = params
        return ((features(own, inputs[batch]) @ weights + bias - places[batch]) ** 2).mean()

    def update(carry, batch):
        params, state = carry
        change, state = adam.update(jax.grad(loss)(params, batch), state)
        params: Any = optax.apply_updates(params, change)
        return (params, state), None

    params: Any = (layers["eyes"], weights, jnp.zeros(3))
    batches = jax.random.randint(order, (settings.updates, _BATCH), 0, settings.images)
    ((own, *_), _), _ = jax.lax.scan(update, (params, adam.init(params)), batches)
    own = select(all_finite(own, batched=False), own, layers["eyes"])
    return dataclasses.replace(policy, params={"params": {**layers, "eyes": own}})
