"""The campaign of faults: `python tests/faults/campaign.py --trials 4000 --kills 200 --seed 0`.

Prints a table: how often each fault was tried, how often the run ended at the same bits, how often a command said in
one line what is wrong, and how often a promise of docs/reliability.md was broken. The exit status is 1 where one was.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

if __name__ == "__main__":  # as a script: tests and the project are found from here
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import pytest
from faults.damage import DAMAGES, damaged
from faults.harness import (
    RESUME,
    TRAIN,
    Killed,
    Trial,
    Violation,
    Whole,
    die,
    digest,
    disturbed,
    fail,
    prepare,
    small_files,
)
from faults.inputs import INPUTS
from support import processes

Fault = Callable[[Trial], str]  # "same" or "error"


def killed(trial: Trial) -> str:
    """A run that dies before any change to the disk, up to three times, and goes on."""
    for _ in range(trial.rng.randint(1, 3)):
        number = trial.rng.randrange(trial.whole.operations)
        trial.log.append(f"death before change {number}")
        try:
            with disturbed(number, die, once=False):
                trial.command(*RESUME)
        except Killed:
            continue
    return _ends_the_same(trial)


def failing(trial: Trial) -> str:
    """A disk that is full, broken or read-only from some change on, or for one of them; then it is mended."""
    number, act = trial.rng.randrange(trial.whole.operations), fail(trial.rng)
    trial.log.append(f"failure from change {number}")
    with disturbed(number, act, once=trial.rng.random() < 0.5):
        answer = trial.expect(trial.command(*RESUME), ("run",), lambda: True)
    _ends_the_same(trial)
    return answer


def full(trial: Trial) -> str:
    """No room for a file of more than some bytes, also for what is written in C++; then there is room again."""
    with small_files(trial.rng.choice([0, 1, 100, 1000, 3000, 6000, 10_000, 20_000])):
        answer = trial.expect(trial.command(*RESUME), ("run",), lambda: True)
    _ends_the_same(trial)
    return answer


def watched(trial: Trial) -> str:
    """Readers at any moment of a run: they answer, and disturb nothing."""
    number, answers = trial.rng.randrange(trial.whole.operations), []

    def look():
        for command in ("evaluate", "plot"):
            answers.append(trial.expect(trial.command(command, "run"), ("run",), lambda: True))

    with disturbed(number, look):
        answer = trial.expect(trial.command(*TRAIN), (), lambda: digest(trial.run) == trial.whole.digest)
    if answer != "same":
        raise trial.violation("readers ended the run")
    trial.clean()
    return answer


def contended(trial: Trial) -> str:
    """A second process that trains the same run, at any moment: one of them ends it, and it ends as one alone."""
    number, answers = trial.rng.randrange(trial.whole.operations), []

    def second():
        answers.append(trial.command(*RESUME))

    with disturbed(number, second):
        answers.append(trial.command(*RESUME))
    for answer in answers:
        trial.expect(answer, ("another process",), lambda: True)
        if "--resume" in answer.err:
            raise trial.violation("who resumes is told to resume")
    if all(answer.status for answer in answers):
        raise trial.violation("neither has trained the run")
    return _ends_the_same(trial)


def killed_for_real(trial: Trial) -> str:
    """A process that gets SIGKILL at a random moment; then the run goes on in this one."""
    with subprocess.Popen(
        [*processes.GPS, *RESUME], env=processes.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        if trial.rng.random() < 0.7:  # most of its time it imports and compiles: wait for a row, and go on from there
            assert child.stdout
            for line in child.stdout:
                if line.startswith(b"iter"):
                    break
            time.sleep(trial.rng.uniform(0.0, 1.0))
        else:
            time.sleep(trial.rng.uniform(0.0, 12.0))
        child.kill()
    return _ends_the_same(trial)


def _ends_the_same(trial: Trial) -> str:
    if trial.resumed(()) != "same":
        raise trial.violation("the run does not go on")
    trial.clean()
    return "same"


FRESH: tuple[Fault, ...] = (killed, failing, full, watched, contended)  # of a run that is trained meanwhile


def campaign(
    whole: Whole,
    place: Path,
    seed: int,
    trials: int,
    kills: int,
    note: Callable[[str], None],
    only: Collection[str] = (),
) -> dict[str, Counter[str]]:
    """Run trials of all faults in turn, and so many of real kills; returns how each fault was met.

    Args:
        only: faults that are tried, each in the trials that it has among all.
    """
    counts: dict[str, Counter[str]] = {}
    for number, (name, trained, fault) in enumerate(_schedule(trials, kills)):
        if only and name not in only:
            continue
        rng = random.Random(f"{seed} {number} {name}")
        trial = whole.trial(rng, place / "trial", trained=trained)
        try:
            counts.setdefault(name, Counter())[fault(trial)] += 1
        except Violation as violation:
            counts[name]["violation"] += 1
            note(f"violation in trial {number} ({name}):\n  {violation}")
    return counts


def _schedule(trials: int, kills: int) -> Iterable[tuple[str, bool, Fault]]:
    faults: list[tuple[str, bool, Fault]] = [
        *((damage.__name__, True, lambda trial, damage=damage: damaged(trial, damage)) for damage in DAMAGES),
        *((fault.__name__, True, fault) for fault in INPUTS),
        *((fault.__name__, False, fault) for fault in FRESH),
    ]
    yield from (faults[number % len(faults)] for number in range(trials))
    yield from (("killed_for_real", False, killed_for_real) for _ in range(kills))


def table(counts: dict[str, Counter[str]]) -> str:
    """In Markdown."""
    rows = ["| fault | trials | same bits | named error | violations |", "|---|---|---|---|---|"]
    for name, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        numbers = " | ".join(str(count[what]) for what in ("same", "error", "violation"))
        rows.append(f"| {name.replace('_', ' ')} | {count.total()} | {numbers} |")
    return "\n".join(rows)


def _main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=200, help="of all faults in turn")
    parser.add_argument("--kills", type=int, default=0, help="of processes, in addition; each takes some 10 s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], metavar="FAULT", help="those of these faults, such as setting")
    options = parser.parse_args()
    known = {name for name, *_ in _schedule(1000, 1)}
    if wrong := [name for name in options.only if name not in known]:
        parser.error(f"--only: unknown fault {wrong[0]!r}; known: {', '.join(sorted(known))}")
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        whole = prepare(Path(place), patch)
        counts = campaign(
            whole,
            Path(place),
            options.seed,
            options.trials,
            options.kills,
            lambda line: print(line, flush=True),
            options.only,
        )
        os.chdir(here)
    print(table(counts))
    return 1 if any(count["violation"] for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(_main())
