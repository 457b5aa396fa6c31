"""A guider of your own: controllers pay a fixed price for each nat by which they leave the learner, and that is all.

It is stochastic guided policy search whose price never moves: a method of the scaffold of model-based guiders, which
collects, fits local models, weighs the samples, teaches the learner and adapts the step size. All commands take it:

    PYTHONPATH=examples gps train reacher --guider own_guider:PRICED --set guider.price=1

Run: python examples/own_guider.py
"""

from dataclasses import dataclass, field

import jax.numpy as jnp

from controllers.kl import add_weighted, negative_log_prob
from gps.columns import Column, short
from gps.entry import Entry
from gps.experiments.experiment import Experiment
from gps.guiders.model_based import settings as tables
from gps.guiders.model_based.method import Method
from gps.guiders.model_based.scaffold import ModelBased
from gps.guiders.model_based.start import StartSettings
from gps.guiders.model_based.trajectory_step import improve_within
from gps.runs.folder import RunFolder
from gps.runs.train import train
from gps.settings import check_positive
from policies import regression


@dataclass(frozen=True)
class PricedSettings:
    price: float = 0.3  # of KL(controller || learner) at a time step; task units per nat
    start: StartSettings = field(default_factory=StartSettings)
    sampling: tables.SamplingSettings = field(default_factory=tables.SamplingSettings)
    trust_region: tables.TrustRegionSettings = field(default_factory=tables.TrustRegionSettings)
    local_model: tables.LocalModelSettings = field(default_factory=tables.LocalModelSettings)
    learner: tables.TaughtLearnerSettings = field(  # it is taught once in an iteration, and longer for that
        default_factory=lambda: tables.TaughtLearnerSettings(training=regression.Settings(updates=640))
    )

    def __post_init__(self):
        check_positive(self, "price")


@dataclass(frozen=True)
class Priced(Method):
    settings: PricedSettings
    name = "priced"
    columns = (Column("gap", "KL", short),)  # of the display, beside those of all methods
    learner_leads = False  # the trust region is measured from the controller that collected
    one_step = False  # each condition has a step size
    needs_model = True  # a condition stays as it is where its local model is not to be trusted

    def improve(self, condition, duals):
        """min E[cost] + price KL(p || pi) within KL(p || p_old) <= limit, by Riccati sweeps in the local model."""
        c = condition
        price = jnp.full(len(c.learner.k), self.settings.price)
        cost = add_weighted(c.model.cost, price, negative_log_prob(c.model.centred(c.learner)))
        region, floor = self.settings.trust_region, self.settings.sampling.std_floor
        return improve_within(c.model, cost, c.reference, c.limit, c.eta, region.tolerance, price, floor)

    def pull_back(self, agreement, condition, duals, settle):
        """There are no duals to move: the gap is measured, for the log."""
        return duals, {"gap": agreement.kl.mean()}


PRICED = Entry(PricedSettings(), lambda task, settings: ModelBased(task, Priced(settings)), "a fixed price of the KL")


if __name__ == "__main__":
    run = {"task": "reacher", "guider": "own_guider:PRICED", "iterations": 5}
    settings = {"run": run, "guider": {"local_model": {"prior": "pooled"}}}
    summary = train(RunFolder.create("runs/own-guider", Experiment.resolve(settings)))
    if not summary["test_score"] < 3.0:
        raise SystemExit(f"the fingertip ends {summary['test_score']:.1f} cm from the test targets")
