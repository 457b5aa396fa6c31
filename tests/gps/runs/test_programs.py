"""Where compiled programs are kept."""

from __future__ import annotations

from pathlib import Path

from gps.runs.programs import machine


def test_machines_with_other_features_keep_their_programs_apart(tmp_path):
    """Such as two that share a home folder; clock rates and the number of cores do not matter."""
    names = {}
    for name, flags, rate, cores in (
        ("old", "sse avx", 3000, 1),
        ("new", "sse avx avx512f", 3000, 1),
        ("busy", "sse avx", 2100, 2),
    ):
        core = f"model name\t: A CPU\ncpu MHz\t\t: {rate}\nflags\t\t: {flags}\n\n"
        (tmp_path / name).write_text(core * cores)
        names[name] = machine(tmp_path / name)
    assert names["old"] == names["busy"] != names["new"]
    assert machine(tmp_path / "none") == machine(Path("/none"))
    assert all(name.startswith("jaxlib-") and "/" not in name for name in names.values())
