"""`gps list`: names, settings and runs."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from gps.experiments.lookup import GUIDERS


def test_the_list_names_what_there_is(said, finished):
    status, out, errors = said("list", "--settings")
    assert (status, errors) == (0, [])
    text = "\n".join(out)
    for line in (
        "tasks:",
        "guiders:",
        "  reacher ",
        "  reacher-pomdp ",
        "  gymnasium:NAME ",
        "  badmm ",
        "no runs in runs/",
    ):
        assert f"\n{line}" in f"\n{text}"
    for setting in ("task.horizon", "task.ring", "guider.sampling.samples", "guider.learner.training.updates"):
        assert re.search(rf"\n +{re.escape(setting)} = \S", text)
    shutil.copytree(finished, "others/broken")
    shutil.copytree(finished, "others/run")
    Path("others/broken/config.toml").write_text('[run]\ntask = "reachr"\n')
    status, out, errors = said("list", "--runs", "others")
    assert (status, errors) == (0, [])  # one bad run does not hide the others
    assert re.fullmatch(r"  broken +cannot be read: its config.toml lacks a setting of the table 'run'", out[-2])
    assert re.fullmatch(r"  run +reacher by badmm, seed 0: 3 of 3 iterations", out[-1])


def test_the_list_can_be_narrowed_to_names(said, finished):
    status, out, errors = said("list", "tiger-door", "gpo-clip", "--settings", "--runs", ".")
    assert (status, errors) == (0, [])
    assert [line for line in out if line[:3].strip()] == [
        "tasks:",
        "  tiger-door  open the door without the tiger, or listen first",
        "guiders:",
        f"  gpo-clip  {GUIDERS['gpo-clip'].about}",
    ]
    assert any(re.match(r' {6}guider.region.form = delta +"delta": ', line) for line in out)
    assert [line.split()[0] for line in said("list", "ppo", "bc")[1]] == ["guiders:", "ppo", "bc"]
    assert [line.split()[0] for line in said("list", "peg*", "pi?")[1]] == [
        *("tasks:", "peg", "peg-blind", "peg-noisy", "peg-vision"),
        *("guiders:", "pi2"),
    ]
    assert said("list", "ppo", "tiger-dor")[2][0].startswith(
        "gps: unknown task or guider 'tiger-dor'; did you mean 'tiger-door'?"
    )


def test_the_list_says_for_which_guiders_a_task_has_defaults_and_how_to_set_them(said):
    _, out, _ = said("list", "tiger-door", "reacher", "--settings")
    general = out.index("      defaults on this task, for model-free guiders that have them:", 20)
    naive = out.index("      and for gpo-naive:")
    assert general < out.index("        guider.penalty.start = 1.0") < naive
    assert out[naive + 1 : naive + 3] == [
        "        guider.ppo.learning_rate = 0.003",
        "      and for gpo-clip-supervised:",
    ]
    assert all(line.startswith(("run.", "guider.")) for line in map(str.strip, out[general:]) if " = " in line)


def test_a_run_with_a_long_name_stays_apart_from_what_is_said_of_it(said, finished):
    name = "a-name-of-more-than-thirty-two-characters"
    shutil.copytree(finished, f"others/{name}")
    shutil.copytree(finished, "others/short")
    assert said("list", "--runs", "others")[1][-2:] == [
        f"  {name}  reacher by badmm, seed 0: 3 of 3 iterations",
        f"  {'short':{len(name)}}  reacher by badmm, seed 0: 3 of 3 iterations",
    ]


def test_a_run_that_is_meant_to_harm_does_not_hide_the_others(said, finished):
    """Each is a line without escapes; nothing is imported for any of them, or waited for."""
    shutil.copytree(finished, "others/z")
    config = Path("others/z/config.toml").read_text().rpartition("# sha256")[0]
    deep, long = "[" * 3000 + "]" * 3000, "1" * 5000
    bad = {
        "a": ("config.toml", f"a = {deep}"),
        "b": ("config.toml", f"a = {long}"),
        "c": ("metrics.jsonl", f'{{"iteration": {long}}}\n'),
        "d": ("metrics.jsonl", deep + "\n"),
        "e": ("config.toml", config.replace("reacher", "\\u001b[2J\\u202e")),
        "f": ("config.toml", config.replace("reacher", "no_such_module:ENTRY")),
        "g": ("config.toml", "\x00" * 2**21),
    }
    for name, (file, text) in bad.items():
        shutil.copytree(finished, f"others/{name}")
        Path(f"others/{name}/{file}").write_text(text)
    shutil.copytree(finished, "others/h")
    Path("others/h/metrics.jsonl").unlink()
    os.mkfifo("others/h/metrics.jsonl")
    status, out, errors = said("list", "--runs", "others")
    assert (status, errors) == (0, [])
    lines = {line.split()[0]: line[5:] for line in out[-9:]}
    assert {name for name in "abcdgh" if not lines[name].startswith("cannot be read: ")} == set()
    assert lines["e"] == r"\x1b[2J\u202e by badmm, seed 0: 3 of 3 iterations"
    assert lines["f"] == "no_such_module:ENTRY by badmm, seed 0: 3 of 3 iterations"
    assert lines["h"].endswith("metrics.jsonl is a pipe, a device or a socket, and a run holds none: remove it")
    assert lines["z"] == "reacher by badmm, seed 0: 3 of 3 iterations"
