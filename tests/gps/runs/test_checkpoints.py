"""Checkpoints: exact, crash-safe, and never silent about damage."""

from __future__ import annotations

import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.folders import files_of, flip
from support.states import assert_same, saved, state_of

from gps.runs.checkpoints import CheckpointError, Checkpoints


def test_restored_is_what_was_saved_bit_for_bit(tmp_path):
    meta = {"iteration": 7, "best": 0.1, "names": ["a", "b"], "none": None, "nested": {"ü": [1.5]}}
    checkpoints = Checkpoints(tmp_path / "made" / "here")
    checkpoints.save(7, state_of(7), meta)
    restored = Checkpoints(tmp_path / "made" / "here").restore(state_of(0))
    assert (restored.step, restored.meta, restored.skipped) == (7, meta, [])
    assert_same(restored.state, state_of(7))


def test_like_may_be_shapes_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    state = {"w": jnp.arange(6.0).reshape(2, 3), "s": jnp.float32(2)}
    checkpoints.save(0, state, {})
    assert_same(checkpoints.restore(jax.eval_shape(lambda: state)).state, state)


def test_a_state_without_elements_is_a_state(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step, state in enumerate([{"a": np.zeros((2, 0), np.int32)}, {}, (None, [])]):
        checkpoints.save(step, state, {"step": step})
        assert_same(checkpoints.restore(state).state, state)


def test_no_checkpoint_is_no_error(tmp_path):
    assert Checkpoints(tmp_path / "none").restore(state_of(0)) is None
    assert Checkpoints(tmp_path / "none").steps() == []
    assert not (tmp_path / "none").exists()


def test_the_newest_keep_stay(tmp_path):
    checkpoints = saved(tmp_path, steps=(1, 5, 3, 99999999, 100000000), keep=2)
    assert checkpoints.steps() == [99999999, 100000000]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["100000000", "99999999"]
    assert checkpoints.restore(state_of(0)).step == 100000000


def test_damage_to_any_file_is_found_named_and_passed_over(tmp_path):
    saved(tmp_path / "sound")
    names = [file.relative_to(tmp_path / "sound") for file in files_of(tmp_path / "sound" / "00000002")]
    assert any(name.name == "record.json" for name in names)
    assert any("ocdbt" in str(name) for name in names)
    for name in names:
        for kind in ("first byte", "last byte", "half", "nothing", "missing"):
            shutil.rmtree(tmp_path / "hurt", ignore_errors=True)
            shutil.copytree(tmp_path / "sound", tmp_path / "hurt")
            file = tmp_path / "hurt" / name
            data = file.read_bytes()
            if kind.endswith("byte"):
                if not data:
                    continue
                flip(file, 0 if kind == "first byte" else -1)
            elif kind == "missing":
                file.unlink()
            elif data:
                file.write_bytes(data[: len(data) // 2] if kind == "half" else b"")
            else:
                continue
            restored = Checkpoints(tmp_path / "hurt").restore(state_of(0))
            assert restored.step == 1, (name, kind)
            assert restored.meta == {"step": 1}
            assert_same(restored.state, state_of(1))
            assert [damage.path for damage in restored.skipped] == [file]
            reason = restored.skipped[0].reason
            assert "missing" in reason if kind == "missing" else "changed" in reason
            assert (tmp_path / "hurt" / "00000002").is_dir()  # what is left of it stays


def test_the_newest_that_is_whole_is_found_without_its_arrays(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, steps=(1, 2, 3))
    monkeypatch.setattr("gps.runs.checkpoints._load", None)
    assert checkpoints.newest().step == checkpoints.newest(state_of(0)).step == 3
    with pytest.raises(CheckpointError, match="00000003 holds a state of another structure"):
        checkpoints.newest({"w": np.zeros(1)})
    flip(files_of(tmp_path / "00000003" / "arrays")[0])
    assert checkpoints.newest().step == 2
    for place in ("00000001", "00000002"):
        (tmp_path / place / "record.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole:\n.*00000003.*\n.*00000002.*\n.*00000001.*"):
        checkpoints.newest()
    assert Checkpoints(tmp_path / "none").newest() is None


def test_every_bit_of_the_record_counts(tmp_path):
    checkpoints = saved(tmp_path)
    file = tmp_path / "00000002" / "record.json"
    sound = file.read_bytes()
    for position in range(0, len(sound), 11):
        flip(file, position)
        restored = checkpoints.restore(state_of(0))
        if sound[position : position + 1].isspace() and restored.step == 2:
            assert_same(restored.state, state_of(2))  # one white character for another says the same
        else:
            assert (restored.step, restored.skipped[0].path) == (1, file), position
        file.write_bytes(sound)


def test_a_checkpoint_under_another_name_is_not_taken_for_that_step(tmp_path):
    checkpoints = saved(tmp_path)
    (tmp_path / "00000002").rename(tmp_path / "00000009")
    restored = checkpoints.restore(state_of(0))
    assert restored.step == 1
    assert restored.skipped[0].path == tmp_path / "00000009" / "record.json"


def test_arrays_that_are_not_those_of_the_record_are_found(tmp_path):
    """The sums of the files are right here, so only the sum over the arrays can tell."""
    checkpoints = saved(tmp_path)
    arrays, file = tmp_path / "00000002" / "arrays", tmp_path / "00000002" / "record.json"
    shutil.rmtree(arrays)
    shutil.copytree(tmp_path / "00000001" / "arrays", arrays)
    record = json.loads(file.read_text())
    record["files"] = {
        str(path.relative_to(arrays.parent)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files_of(arrays)
    }
    text = json.dumps([record["content"], record["files"]], sort_keys=True)
    file.write_text(json.dumps(record | {"sha256": hashlib.sha256(text.encode()).hexdigest()}))
    restored = checkpoints.restore(state_of(0))
    assert (restored.step, restored.skipped[0].path) == (1, arrays)
    assert "other arrays" in restored.skipped[0].reason


def test_all_damaged_is_an_error_that_lists_all(tmp_path):
    checkpoints = saved(tmp_path)
    (tmp_path / "00000001" / "record.json").unlink()
    shutil.rmtree(tmp_path / "00000002" / "arrays")
    with pytest.raises(CheckpointError) as error:
        checkpoints.restore(state_of(0))
    assert f"{tmp_path / '00000001' / 'record.json'}: is missing" in str(error.value)
    assert f"{tmp_path / '00000002' / 'arrays'}" in str(error.value)
    assert checkpoints.steps() == [1, 2]


def test_a_state_of_another_structure_is_an_error_that_names_the_leaves(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {"w": np.zeros((2, 3), np.float32), "old": np.zeros(1)}, {})
    with pytest.raises(CheckpointError) as error:
        checkpoints.restore({"w": np.zeros((3, 2), np.float32), "new": np.zeros(1)})
    assert "'['w']': saved float32[2,3], wanted float32[3,2]" in str(error.value)
    assert "'['old']': saved float64[1], wanted nothing" in str(error.value)
    assert "'['new']': saved nothing, wanted float64[1]" in str(error.value)


def test_a_damaged_step_is_saved_again_and_its_remains_are_kept(tmp_path):
    checkpoints = saved(tmp_path)
    for again in ("damaged-2", "damaged-2-2"):
        files_of(tmp_path / "00000002" / "arrays")[-1].unlink()
        hurt = [file.relative_to(tmp_path / "00000002") for file in files_of(tmp_path / "00000002")]
        checkpoints.save(2, state_of(2), {"step": 2})
        assert [file.relative_to(tmp_path / again) for file in files_of(tmp_path / again)] == hurt
        restored = checkpoints.restore(state_of(0))
        assert (restored.step, restored.skipped) == (2, [])
        assert_same(restored.state, state_of(2))
    assert checkpoints.steps() == [1, 2]


def test_saving_a_whole_step_again_does_nothing_or_keeps_the_other(tmp_path):
    checkpoints = saved(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in files_of(tmp_path)}
    checkpoints.save(2, state_of(2), {"step": 2})
    assert {file: file.stat().st_mtime_ns for file in files_of(tmp_path)} == before
    checkpoints.save(2, state_of(3), {"step": 2})
    assert_same(checkpoints.restore(state_of(0)).state, state_of(3))
    (tmp_path / "00000002").rename(tmp_path / "away")
    (tmp_path / "replaced-2").rename(tmp_path / "00000002")
    assert_same(checkpoints.restore(state_of(0)).state, state_of(2))


def test_damaged_checkpoints_do_not_count_among_those_to_keep(tmp_path):
    checkpoints = saved(tmp_path, steps=(1, 2, 3), keep=2)
    assert checkpoints.steps() == [2, 3]
    flip(files_of(tmp_path / "00000003" / "arrays")[-1])
    checkpoints.save(4, state_of(4), {})
    assert checkpoints.steps() == [2, 3, 4]  # 2 and 4 are the whole ones
    checkpoints.save(5, state_of(5), {})
    assert checkpoints.steps() == [4, 5]


@pytest.mark.parametrize(
    ("state", "meta", "error", "message"),
    [
        ({"key": jax.random.key(0)}, {}, CheckpointError, r"\['key'\].*random key"),
        ({"a": object()}, {}, CheckpointError, r"\['a'\].*object"),
        ({"a": "text"}, {}, CheckpointError, r"\['a'\].*str"),
        ({"a": np.zeros(1)}, {"x": object()}, TypeError, "JSON"),
    ],
)
def test_what_cannot_be_saved_is_an_error_before_anything_is_written(tmp_path, state, meta, error, message):
    checkpoints = saved(tmp_path, steps=(1,))
    with pytest.raises(error, match=message):
        checkpoints.save(2, state, meta)
    assert [entry.name for entry in tmp_path.iterdir()] == ["00000001"]


def test_impossible_settings_are_errors(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1, not 0"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match="0 or more, not -1"):
        Checkpoints(tmp_path).save(-1, {"a": np.zeros(1)}, {})
