"""Our PPO beside the JAX implementations on PyPI: steps per second of the whole training loop, and compile times.

CartPole of gymnax beside rejax; an inverted double pendulum of Brax (spring) beside Brax's own PPO. With a GRU ours
is alone: rejax and Brax have no memory, and nnx-ppo, which has an LSTM, neither a GRU nor choices as actions, and it
asks for a later flax than goes with this project's jax.

Both sides have two networks of 64 x 64 with tanh (with a memory: 64, then a GRU of 64), the same environments, steps,
epochs, minibatches and coefficients, and take turns in the same process. A time is the median over chunks of about
100 000 steps after a first one: collecting and updating, and no evaluation. CPU time is of all threads, and says more
where the machine is busy.

What can not be made equal:
  rejax     draws and steps one key per environment and step, clips the value function's changes and each number of a
            gradient instead of its norm, has an Adam for each network, and takes CartPole's time limit for a failure;
            ours takes the limit for what it is, watches every step and every gradient for NaN, and counts terms of
            the loss for the log. gymnax 1.0 gives rejax 0.1.3 six values for five: an adapter makes them five.
  Brax      estimates advantages anew in every gradient step, shuffles whole sequences instead of steps, draws the
            entropy of its tanh-Gaussian once where ours has five nodes of a quadrature, and begins episodes anew from
            the start state that it drew first.

Compile times are of one iteration, cold: fresh processes, caches off, tracing included and imports not. GPO-clip has
no peer: it runs a guider beside the learner, and its loss has three terms more than PPO's.

Run: python benchmarks/ppo.py [--repeats 7] [--no-peers] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import jax
import ppo_peers
from timing import machine, measure, row, table

from gps.guiders.guider import iterate
from gps.guiders.learner import LearnerSettings, NetworkSettings
from gps.guiders.model_free.guider import ModelFree
from gps.guiders.model_free.settings import SETTINGS, PpoSettings
from gps.runs.evaluate import returns
from gps.tasks.task import Environment

CHUNK = 100_000  # steps
CARTPOLE = PpoSettings(unroll=128, learning_rate=2.5e-4, normalize=False)
PENDULUM = PpoSettings(environments=128, unroll=32, learning_rate=3e-4, reward_scale=0.1)
EPISODE = 1000  # steps, of the pendulum
FAST, COMPILED = (1.0, 1.3), (10.0, 5.0)  # must and aim: our steps per second over theirs; seconds


class Ours:
    """Our PPO, or another of our methods, with the interface of `ppo_peers.Rejax`."""

    def __init__(self, ppo: PpoSettings, task: Environment, memory: int = 0, method: str = "ppo"):
        network = NetworkSettings(hidden=(64,) if memory else ppo_peers.HIDDEN, memory=memory)
        self.guider = ModelFree(method, task, SETTINGS[method](LearnerSettings(network), ppo))
        self.init = self.guider.init

    def train(self, state: Any, key: jax.Array) -> tuple[Any, dict[str, Any]]:
        """Some updates."""
        return iterate(self.guider, state, key)

    def reached(self, state: Any) -> float:
        """Mean return of 128 episodes, with sampled actions."""
        keys = jax.random.split(jax.random.key(1), 128)
        return float(jax.jit(self._returns)(state, keys).mean())

    def _returns(self, state: Any, keys: jax.Array) -> jax.Array:
        return returns(self.guider.task, self.guider.policy(state), keys, 1.0)[0]


class Runner:
    """One side: compiled, with its state and the times of its chunks."""

    def __init__(self, side: Any, ppo: PpoSettings):
        self.side = side
        self.steps = ppo.updates * ppo.environments * ppo.unroll
        self.state = jax.jit(side.init)(jax.random.key(0))
        self.compiled = jax.jit(side.train).lower(self.state, jax.random.key(1)).compile()
        self.times: list[tuple[float, float]] = []

    def chunk(self) -> None:
        """Train on, and keep the time."""
        key = jax.random.key(len(self.times) + 2)
        wall, cpu, (self.state, _) = measure(self.compiled, self.state, key)
        self.times.append((wall, cpu))

    def rates(self) -> tuple[float, float]:
        """Steps per second of wall and of CPU time."""
        wall, cpu = (statistics.median(times) for times in zip(*self.times[1:], strict=True))
        return self.steps / wall, self.steps / cpu

    def reached(self) -> float:
        """The return that its policy has come to."""
        return self.side.reached(self.state)


def chunked(ppo: PpoSettings, environments: int) -> PpoSettings:
    """With that many environments, and updates that make a chunk."""
    updates = max(1, CHUNK // (environments * ppo.unroll))
    return dataclasses.replace(ppo, environments=environments, updates=updates)


def print_rates(case: str, runs: dict[str, tuple[float, float, Any]]) -> tuple[str, float, float] | None:
    """Lines of the table, and (case, ratio of wall, ratio of CPU time) where there are two sides."""
    for name, (wall, cpu, reached) in runs.items():
        row(case, name, round(wall / 1e3, 1), round(cpu / 1e3, 1), reached)
    if len(runs) == 1:
        return None
    ours, peer = runs.values()
    return case, ours[0] / peer[0], ours[1] / peer[1]


def cartpole(environments: int, memory: int, peers: bool, repeats: int) -> tuple[str, float, float] | None:
    """One case on CartPole."""
    ppo = chunked(CARTPOLE, environments)
    sides: dict[str, Any] = {"ours": Ours(ppo, ppo_peers.GymnaxCartPole(), memory)}
    if peers and not memory:
        sides["rejax"] = ppo_peers.Rejax(ppo)
    runners = {name: Runner(side, ppo) for name, side in sides.items()}
    for _ in range(repeats + 1):
        for runner in runners.values():
            runner.chunk()
    case = f"CartPole {environments} x {ppo.unroll}{', GRU' if memory else ''}"
    return print_rates(case, {name: (*run.rates(), round(run.reached())) for name, run in runners.items()})


def pendulum(repeats: int) -> tuple[str, float, float] | None:
    """Brax's task: a chunk of ours after each of Brax's."""
    ppo = chunked(PENDULUM, PENDULUM.environments)
    foreign, task = ppo_peers.brax_pendulum(EPISODE)
    ours = Runner(Ours(ppo, task), ppo)
    times = ppo_peers.brax_train(foreign, ppo, EPISODE, repeats + 1, ours.chunk)
    wall, cpu = (statistics.median(values) for values in zip(*times[1:], strict=True))
    theirs = (ours.steps / wall, ours.steps / cpu, "-")
    case = f"Brax inverted double pendulum {ppo.environments} x {ppo.unroll}"
    return print_rates(case, {"ours": (*ours.rates(), round(ours.reached())), "Brax": theirs})


COMPILATIONS = {
    "ours": lambda ppo: Ours(ppo, ppo_peers.GymnaxCartPole()),
    "ours, GRU": lambda ppo: Ours(ppo, ppo_peers.GymnaxCartPole(), 64),
    "ours, GPO-clip": lambda ppo: Ours(ppo, ppo_peers.GymnaxCartPole(privileged=True), method="gpo-clip"),
    "rejax": ppo_peers.Rejax,
}


def compile_here(name: str) -> None:
    """Compile an iteration in this process and print its seconds as JSON; what a child process does."""
    ppo = chunked(CARTPOLE, 64)
    side = COMPILATIONS[name](ppo)
    state = jax.eval_shape(side.init, jax.random.key(0))
    trace, trace_cpu, traced = measure(jax.jit(side.train).trace, state, jax.random.key(1))
    compilation, compilation_cpu, _ = measure(lambda: traced.lower().compile())
    print(json.dumps([trace, compilation, trace_cpu + compilation_cpu]))


def compilations(peers: bool, repeats: int) -> dict[str, float]:
    """Print compile times; medians of whole seconds by name."""
    table("Compilation of an iteration, CartPole 64 x 128", "what", "trace, s", "compile, s", "sum, s", "sum, CPU s")
    whole = {}
    for name in COMPILATIONS:
        if name == "rejax" and not peers:
            continue
        runs = []
        for _ in range(repeats):
            child = subprocess.run(
                [sys.executable, __file__, "--compile", name], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(child.stdout.splitlines()[-1]))
        trace, compilation, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
        whole[name] = statistics.median(run[0] + run[1] for run in runs)
        row(name, trace, compilation, whole[name], cpu)
    return whole


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="chunks that the medians are over")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--quick", action="store_true", help="under a minute: one case, one repeat, ours alone")
    parser.add_argument("--compile", choices=COMPILATIONS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.repeats, given.no_peers = 1, True
    return given


def verdict(value: float, limits: tuple[float, float], least: bool) -> str:
    """Whether a number is what it must be, and what it aims at."""
    must, aim = (value >= limit if least else value <= limit for limit in limits)
    return "aim" if aim else "must" if must else "missed"


def main() -> None:
    """Print all tables."""
    given = arguments()
    jax.config.update("jax_enable_compilation_cache", False)
    if given.compile:
        compile_here(given.compile)
        return
    absent = [] if given.no_peers else ppo_peers.missing()
    peers = not (given.no_peers or absent)
    packages = ("jax", "jaxlib", "flax", "optax", *(ppo_peers.PACKAGES * peers))
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"Command: python {' '.join(sys.argv)}  \nDate: {datetime.date.today()}  \n{machine()}  ")
    print(f"Python {platform.python_version()}, {versions}, backend {jax.default_backend()}  ")
    if absent:
        print(f"No peers: {', '.join(absent)} not found; pip install 'guided-policy-search[bench]'")

    table("Training", "what", "who", "1000 steps/s", "1000 steps/s of CPU time", "return")
    cases = [(4, 0)] if given.quick else [(4, 0), (64, 0), (4, 64), (64, 64)]
    ratios = [cartpole(count, memory, peers, given.repeats) for count, memory in cases]
    if peers:
        ratios.append(pendulum(given.repeats))
    whole = compilations(peers, 1 if given.quick else 3)

    table("Targets", "what", "measured", "by CPU time", "must", "aim", "reached")
    for case, wall, cpu in (ratio for ratio in ratios if ratio):
        row(f"{case}: ours over theirs", round(wall, 2), round(cpu, 2), *FAST, verdict(wall, FAST, least=True))
    for name in (name for name in whole if name != "rejax"):
        row(f"{name}: compile, s", round(whole[name], 1), "-", *COMPILED, verdict(whole[name], COMPILED, least=False))


if __name__ == "__main__":
    main()
