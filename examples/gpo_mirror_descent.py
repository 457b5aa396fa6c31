"""A guider that sees the state and gives its learner exactly what mirror descent on the learner would give.

One iteration of guided policy optimisation is a step of mirror descent on the learner, however large, if the guider is
projected by KL(learner || guider); by maximum likelihood, KL(guider || learner), it is so for small steps only.

Run: python examples/gpo_mirror_descent.py [--out gpo_mirror_descent.png]
"""

import argparse
import sys

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from gps.guiders.model_free import tabular

jax.config.update("jax_enable_x64", True)
STEPS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)  # nats per unit of reward
PROJECTIONS = {"bregman": "KL(learner || guider)", "forward": "KL(guider || learner)"}
TIGER = tabular.tiger_door_alt()


def differences(key, step):
    """How far one iteration is from one step on the learner: the largest difference of a probability."""
    make, start = jax.random.split(key)
    pomdp = tabular.random_pomdp(make, states=6, actions=3, observations=3, discount=0.9)
    log_pi = jax.nn.log_softmax(jax.random.normal(start, (3, 3)))
    direct = jnp.exp(tabular.mirror_descent(pomdp, log_pi, step))
    guided = {kind: jnp.exp(tabular.gpo_naive(pomdp, log_pi, step, kind)) for kind in PROJECTIONS}
    return {kind: jnp.abs(pi - direct).max() for kind, pi in guided.items()}


def returns(improve):
    """On tiger-door-alt, of the uniform learner and of those that come from it in 40 iterations."""

    def iterate(log_pi, _):
        return improve(log_pi), tabular.evaluate(TIGER, tabular.lift(TIGER, log_pi)).value

    return jax.lax.scan(iterate, tabular.uniform(TIGER), length=41)[1]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="gpo_mirror_descent.png", help="the figure (default: %(default)s)")
out = parser.parse_args().out

compare = jax.jit(jax.vmap(differences, in_axes=(0, None)))  # over problems
found = [compare(jax.random.split(jax.random.key(0), 500), step) for step in STEPS]
worst = {kind: jnp.array([values[kind].max() for values in found]) for kind in PROJECTIONS}
print("largest difference from mirror descent on the learner, for steps of", *STEPS)
for kind, values in worst.items():
    print(f"{kind:10}" + "".join(f"{value:10.1e}" for value in values))

teacher = tabular.best_guider(TIGER)
improvements = {
    "mirror descent on the learner, step 1": lambda pi: tabular.mirror_descent(TIGER, pi, 1.0),
    "GPO, KL(learner || guider), step 1": lambda pi: tabular.gpo_naive(TIGER, pi, 1.0, "bregman"),
    "GPO, KL(guider || learner), step 0.3": lambda pi: tabular.gpo_naive(TIGER, pi, 0.3, "forward"),
    "GPO, KL(guider || learner), step 1": lambda pi: tabular.gpo_naive(TIGER, pi, 1.0, "forward"),
    "imitation of the best guider": lambda pi: tabular.imitate(TIGER, teacher, pi),
}
curves = {name: returns(improve) for name, improve in improvements.items()}
print("learner's return on tiger-door-alt, every tenth iteration")
for name, curve in curves.items():
    print(f"{name:40}" + "".join(f"{value:8.4f}" for value in curve[::10]))

figure = Figure(figsize=(9, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
for kind, label in PROJECTIONS.items():
    left.loglog(STEPS, worst[kind], "o-", label=f"projection by {label}")
left.set(xlabel="step (nat per reward)", ylabel="difference from mirror descent", title="500 random problems")
left.legend(loc="center right")
for (name, curve), line in zip(curves.items(), ("k", "--", "-.", "-", ":"), strict=True):
    right.plot(curve, line, label=name)
right.set(xlabel="iteration", ylabel="return", ylim=(0.6, 1.02), title="tiger-door-alt")
right.legend(loc="lower right", fontsize="small")
figure.savefig(out, dpi=110)

direct, exact, small, large, imitation = curves.values()
same = worst["bregman"].max() < 1e-10 and jnp.abs(exact - direct).max() < 1e-10
second_order = 90 < worst["forward"][1] / worst["forward"][0] < 110  # the step is ten times as large
if not (same and second_order and exact[-1] > 0.9999 > small[-1] > 0.98 > large[-1] > 0.8 > imitation[-1] > 0.7):
    sys.exit("the learners are not what the proposition says")
