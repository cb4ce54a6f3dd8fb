"""Footage without truth: what is left out is left out of everything, and what has been made is not made again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.peers import exact_labels, four_cameras, swaying_hand
from usthand.capture.capture import Capture
from usthand.common.errors import UsthandError
from usthand.experiments.peers import footage
from usthand.experiments.peers.exchange import Placed, as_result
from usthand.experiments.peers.footage import FOOTAGE_COLUMNS, Timed, measure_footage

OFF_PX = 3.0


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """Exact labels but for one camera, all of whose labels are off; methods that know the truth, and their calls."""
    rig, joints = four_cameras(), swaying_hand(12)
    labels = exact_labels(rig, joints)
    off = np.zeros((4, 1, 2))
    off[2, 0, 0] = OFF_PX
    labels = replace(labels, uv_px=labels.uv_px + off.astype(np.float32))
    calls = []

    def made(capture, name, side, camera):
        calls.append((name, side, camera))
        used = rig.without(camera) if camera else rig
        placed = np.ones((12, 21), bool)
        placed[0] = name != "eks"
        return Timed(as_result(Placed(joints, placed), used, side, name), 2.0)

    monkeypatch.setattr(footage, "open_capture", lambda path: Capture(tmp_path, rig, (), 30.0))
    monkeypatch.setattr(Capture, "label_sides", lambda self: ["right"])
    monkeypatch.setattr(footage, "load_labels", lambda capture, side: labels)
    monkeypatch.setattr(footage, "missing_environments", lambda: ["anipose", "pose2sim", "athena"])
    monkeypatch.setattr(footage, "_made", made)
    return tmp_path, calls, rig


def test_numbers_are_means_over_the_cameras_left_out(clip):
    kept, calls, rig = clip
    rows = measure_footage(kept, kept / "results")
    assert set(rows) == {"raw", "smooth", "fit", "shipped", "eks", "eks-inflated"}, (
        "programs that are not there have no line"
    )
    for row in rows.values():
        assert set(row) == set(FOOTAGE_COLUMNS)
        # Three cameras agree with the truth to single precision, one is off.
        assert row["leave_out_median_px"] == pytest.approx(OFF_PX / 4, abs=1e-3) and row["seconds"] == 2.0
        assert row["bone_spread_mm"] == pytest.approx(0, abs=1e-6)
    assert rows["fit"]["placed"] == 1 and rows["eks"]["placed"] == pytest.approx(11 / 12, abs=1e-4)
    assert set(calls) == {(name, "right", camera) for name in rows for camera in (None, *rig.names)}
    assert len(calls) == len(set(calls)), "none is made twice"


def test_what_has_been_made_is_kept_for_its_release(clip, monkeypatch):
    kept, calls, _ = clip
    first = measure_footage(kept, kept / "results")
    calls.clear()
    assert measure_footage(kept, kept / "results") == first and not calls
    monkeypatch.setattr(footage, "weights_digest", lambda: "other")
    measure_footage(kept, kept / "results")
    assert {name for name, *_ in calls} == {"raw", "smooth", "fit", "shipped"}


def test_a_camera_left_out_leaves_two(clip, monkeypatch):
    kept, _, rig = clip
    two = replace(rig, cameras=rig.cameras[:2])
    monkeypatch.setattr(footage, "open_capture", lambda path: Capture(kept, two, (), 30.0))
    with pytest.raises(UsthandError, match="has 2 cameras"):
        measure_footage(kept, kept / "results")
