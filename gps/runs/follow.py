"""The part of a process that another one leads."""

from __future__ import annotations

import jax

from gps.experiments.experiment import Experiment
from gps.guiders.guider import DivergedError
from gps.runs import processes
from gps.runs.programs import Programs, keys_of, use_compilation_cache
from gps.runs.resume import shapes_of


def follow() -> None:
    """Take part in the run that process 0 trains (`gps.runs.train.train`), to its end.

    What is collective there is called here, in the same order. All that this process needs comes from process 0: it
    reads no file of the run and writes none.

    Errors:
        PartedError where another process has ended, and DivergedError as in `train`.
    """
    use_compilation_cache()
    said = processes.welcome()
    experiment = Experiment.resolve(said["settings"])
    programs = Programs(experiment.build(), experiment.run.devices)
    run = experiment.run
    *_, iterating = keys_of(run)
    state = programs.place(processes.shared(shapes_of(programs.guider)))
    for i in range(said["first"], run.iterations):
        try:
            state, _ = programs.iterate(state, jax.random.fold_in(iterating, i))
        except DivergedError:
            programs.on_host(state)
            raise
        if run.evaluates(i) or run.saves(i):
            programs.on_host(state)
    programs.on_host(state)
    processes.meet()
