"""What places the hand in each frame: the detector's labels, the network alone, or nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.stand_in import make_truth, result_of
from support.type_checks import unchecked
from usthand.hand.result import BY_LABELS, BY_NETWORK, INTERPOLATED, load_result

VALID = np.array([True, True, False, True])


@pytest.fixture
def result():
    return replace(result_of(make_truth(np.random.default_rng(0), len(VALID))), valid=VALID)


def test_labels_place_the_hand_where_nothing_else_is_said(result):
    assert result.source.tolist() == [BY_LABELS, BY_LABELS, INTERPOLATED, BY_LABELS]
    assert result.source.dtype == np.int8


def test_nothing_places_the_hand_where_it_is_not_valid(result):
    """Whatever is said of such frames, and also once fewer are valid than before."""
    found = replace(result, source=np.array([BY_LABELS, BY_NETWORK, BY_NETWORK, BY_LABELS]))
    assert found.source.tolist() == [BY_LABELS, BY_NETWORK, INTERPOLATED, BY_LABELS]
    fewer = replace(found, valid=np.array([False, True, False, True]))
    assert fewer.source.tolist() == [INTERPOLATED, BY_NETWORK, INTERPOLATED, BY_LABELS]


def test_it_is_kept_in_files_and_by_every_change(result, tmp_path):
    found = replace(result, source=np.array([BY_NETWORK, BY_LABELS, INTERPOLATED, BY_NETWORK]))
    again = load_result(found.save(tmp_path / "r.npz"))
    for other in (again, found.mirrored(), found.as_detected(), found.keep(5)):
        assert np.array_equal(other.source, found.source)
    assert np.array_equal(np.load(tmp_path / "r.npz")["source"], found.source)


@pytest.mark.parametrize("version", [1, 2])
def test_in_files_that_do_not_say_it_the_labels_place_the_hand(result, tmp_path, version):
    found = replace(result, source=np.where(VALID, BY_NETWORK, INTERPOLATED))
    with np.load(found.save(tmp_path / "new.npz")) as file:
        arrays = {name: file[name] for name in file.files if name != "source"} | {"version": np.array(version)}
    if version == 1:
        arrays |= {"scale": arrays.pop("unit_source"), "joints": arrays.pop("joint_model")}
    np.savez(tmp_path / "old.npz", **arrays)
    assert np.array_equal(load_result(tmp_path / "old.npz").source, np.where(VALID, BY_LABELS, INTERPOLATED))


def test_other_numbers_are_refused(result):
    with pytest.raises(ValueError, match="source holds other numbers than 0, 1 and 2"):
        replace(result, source=np.array([1, 3, 0, 1]))
    with unchecked(), pytest.raises(ValueError, match="source has shape"):
        replace(result, source=np.array([1, 1]))
