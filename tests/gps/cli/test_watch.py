"""`gps watch` as a command."""

from __future__ import annotations

from gps.columns import short


def test_a_run_is_followed_to_its_end(said, finished, without_times):
    status, out, errors = said("watch", finished)
    assert (status, errors, out[0]) == (
        0,
        [],
        "reacher by badmm, seed 0, engine mujoco: 3 iterations, 3 done before",
    )
    for line, row in zip(out[1:], without_times(finished), strict=True):
        assert line.startswith(f"iter {row['iteration'] + 1}  ")
        assert f"test {short(row['test_score'])} cm" in line


def test_what_is_no_run_can_not_be_followed(said):
    assert said("watch", "nowhere")[::2] == (2, ["gps: nowhere is no run: there is no such folder"])
