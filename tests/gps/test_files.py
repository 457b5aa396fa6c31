"""Files that come from anywhere: nothing is followed, and what is written is whole, or not there."""

from __future__ import annotations

import errno
import os

import pytest

from gps.errors import printable
from gps.files import FileError, is_temporary, read_bytes, require_plain, sweep, told, write_text, written_whole


def test_a_link_is_not_followed_to_write_or_to_read(tmp_path):
    """It is replaced by what is written; what it leads to stays."""
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("mine")
    link.symlink_to(victim)
    with pytest.raises(FileError, match="link is no plain file, but a link or a pipe"):
        read_bytes(link)
    write_text(link, "theirs")
    assert (victim.read_text(), link.read_text(), link.is_symlink()) == ("mine", "theirs", False)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileError, match="pipe is no plain file"):
        read_bytes(tmp_path / "pipe")


def test_what_was_guessed_to_be_the_temporary_file_is_not_written_through(tmp_path, monkeypatch):
    """Also where the guess is right."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    (tmp_path / f".a.{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(FileError, match=r"a can not be written: File exists"):
        write_text(tmp_path / "a", "theirs")
    assert victim.read_text() == "mine"


def test_two_writers_do_not_disturb_each_other(tmp_path):
    file = tmp_path / "a"
    with written_whole(file) as one:
        with written_whole(file) as other:
            one.write_text("first")
            other.write_text("second")
        assert file.read_text() == "second"
    assert file.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_new_file_takes_no_name_that_is_taken(tmp_path, monkeypatch):
    """With hard links, and on file systems without."""
    for links in (True, False):
        if not links:
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError()))
        write_text(tmp_path / f"new{links}", "first", new=True)
        with pytest.raises(FileError, match="exists"):
            write_text(tmp_path / f"new{links}", "second", new=True)
        assert (tmp_path / f"new{links}").read_text() == "first"


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    assert read_bytes(tmp_path / "a", 3) == b"123"
    with pytest.raises(FileError, match="a is larger than the 2 bytes"):
        read_bytes(tmp_path / "a", 2)


def test_what_is_left_behind_is_swept_and_nothing_else(tmp_path):
    names = ["a", ".a.tmp", f".a.{'3' * 16}.tmp", f".a.{'3' * 15}.tmp", "a.tmp", f".a.{'3' * 16}.tmp.kept"]
    for name in names:
        (tmp_path / name).write_text("")
    assert [name for name in names if is_temporary(name)] == names[2:3]
    sweep(tmp_path, age=60.0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(names)
    sweep(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(set(names) - {names[2]})


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
def test_what_is_neither_file_nor_folder_is_named(tmp_path, kind):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("")
    require_plain(tmp_path)
    odd = tmp_path / "a" / "b" / "odd"
    os.mkfifo(odd) if kind == "pipe" else odd.symlink_to({"link": "file", "dangling": "none", "folder": ".."}[kind])
    with pytest.raises(FileError, match=r"a/b/odd is a (link|pipe.*), and a run holds none: remove it"):
        require_plain(tmp_path)


def test_an_error_of_the_disk_is_a_line_with_the_file_and_what_to_do():
    with pytest.raises(FileError) as error, told("run/a", "written"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(error.value) == (
        "run/a can not be written: the disk is full; make room for it: what was saved before is whole"
    )


def test_what_a_terminal_would_obey_is_printed_as_escapes():
    assert printable("plain ä") == "plain ä"
    assert printable("a\nb") == r"a\nb"
    assert printable("\x1b]0;t\x07\r\u202e\udcff") == r"\x1b]0;t\x07\r\u202e\udcff"
    assert len(printable("a" * 10**6)) < 5000
