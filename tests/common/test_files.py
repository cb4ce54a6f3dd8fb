"""Files and folders are there whole or not at all, and nothing is written over by accident."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from usthand.common.errors import UsthandError
from usthand.common.files import refuse_existing, whole_file, whole_folder, write_toml


class Stopped(BaseException):
    """As a KeyboardInterrupt: not an Exception."""


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_once_it_is_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "a.npz"
    for text in ("first", "second"):
        with whole_file(path) as partial:
            assert partial.suffix == ".npz" and partial.parent == path.parent
            partial.write_text(text)
            assert text == "second" or not path.exists()
        assert path.read_text() == text and names(path.parent) == ["a.npz"]


@pytest.mark.parametrize("error", [ValueError, Stopped])
def test_a_failed_file_leaves_nothing_and_the_old_one_survives(tmp_path, error):
    path = tmp_path / "a.txt"
    for there in ([], ["a.txt"]):
        with pytest.raises(error), whole_file(path) as partial:
            partial.write_text("half")
            raise error
        assert names(tmp_path) == there
        path.write_text("old")
    assert path.read_text() == "old"


def test_a_file_that_nobody_wrote_is_an_error_and_the_old_one_survives(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_appears_once_it_is_whole(tmp_path):
    out = tmp_path / "deep" / "made"
    with whole_folder(out, "a capture") as partial:
        (partial / "x").write_text("1")
        assert not out.exists()
    assert names(out) == ["x"] and names(out.parent) == ["made"]
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty", "a capture") as partial:
        (partial / "x").write_text("1")
    assert names(tmp_path / "empty") == ["x"]


def test_the_folder_that_one_works_in_is_filled(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with whole_folder(".", "a capture") as partial:
        (partial / "x").write_text("1")
    assert names(Path()) == ["x"] and names(tmp_path) == ["here"]


@pytest.mark.parametrize("error", [ValueError, Stopped])
def test_a_failed_folder_leaves_nothing(tmp_path, error):
    with pytest.raises(error), whole_folder(tmp_path / "made", "a capture") as partial:
        (partial / "x").write_text("1")
        raise error
    assert names(tmp_path) == []


def test_what_a_killed_run_left_is_cleared(tmp_path):
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial" / "rubbish").touch()
    with whole_folder(tmp_path / "made", "a capture") as partial:
        (partial / "x").touch()
    assert names(tmp_path) == ["made"] and names(tmp_path / "made") == ["x"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_folder_is_never_written_over(tmp_path, kind):
    out = tmp_path / "made"
    if kind == "folder":
        out.mkdir()
        (out / "mine").write_text("mine")
    else:
        out.write_text("mine")
    with pytest.raises(UsthandError, match="made exists: a capture is never written over"):
        with whole_folder(out, "a capture"):
            pytest.fail("the block must not begin")
    assert names(tmp_path) == ["made"] and (out / "mine" if kind == "folder" else out).read_text() == "mine"


def test_existing_output_is_refused_unless_it_may_be_replaced(tmp_path):
    there = tmp_path / "a.npz"
    there.touch()
    refuse_existing([tmp_path / "b.npz"])
    refuse_existing([there], overwrite=True)
    with pytest.raises(UsthandError, match=r"a\.npz is there already: an earlier run wrote it; .*--overwrite"):
        refuse_existing([tmp_path / "b.npz", str(there)])
    with pytest.raises(UsthandError) as told:
        refuse_existing([there], cause="a reason", fix="do this")
    assert (told.value.cause, told.value.fix) == ("a reason", "do this")


def test_toml_comes_back_exactly_with_arrays_on_one_line(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(3, 3)) * 10.0 ** np.arange(-150, 300, 150)
    data = {
        "version": 1,
        "name": 'a "quoted" ], [\nname\u2028é',
        "empty": [],
        "third": 1 / 3,
        "cameras": [{"matrix": numbers.tolist(), "size": [3, 4], "words": ["x, ]", "["]}, {"nothing": [[], []]}],
        "offset": {"cam 1": -2},
    }
    write_toml(tmp_path / "a.toml", data, "px\nmetres")
    text = (tmp_path / "a.toml").read_text("utf-8")
    assert tomllib.loads(text) == data and text.startswith("# px\n# metres\n")
    assert "\nsize = [3, 4]\n" in text and names(tmp_path) == ["a.toml"]
    special = {"values": [float("inf"), float("nan"), -0.0]}
    write_toml(tmp_path / "a.toml", special)
    assert repr(tomllib.loads((tmp_path / "a.toml").read_text("utf-8"))) == repr(special)


def test_toml_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_toml(tmp_path / "a.toml", {"a": 1})
    with pytest.raises(TypeError):
        write_toml(tmp_path / "a.toml", {"a": object()})
    assert tomllib.loads((tmp_path / "a.toml").read_text("utf-8")) == {"a": 1} and names(tmp_path) == ["a.toml"]
