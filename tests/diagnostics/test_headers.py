"""What the headers of the videos show: sizes, lengths and frame rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.check_captures import FRAMES, broken_rig, check, labelled_rig, only, wide_rig
from usthand.capture.probe import VideoHeader
from usthand.diagnostics import corrections


def test_videos_of_another_size_than_calibrated():
    made = labelled_rig(9, 3, "heavy")
    rig = broken_rig(made.rig, lambda c: corrections.resized(c, 512, 512))
    videos = {name: VideoHeader(256, 256, FRAMES, 30.0) for name in rig.names}
    report = check(made, rig, videos)
    finding = only(report)
    assert finding.fault == "wrong_size" and finding.evidence["kind"] == "resized"
    for fixed, true in zip(report.rig.cameras, made.rig.cameras, strict=True):
        assert (fixed.width, fixed.height) == (256, 256) and np.allclose(fixed.matrix, true.matrix)


@pytest.mark.parametrize("matrix_too", [False, True])
def test_width_and_height_exchanged(matrix_too):
    made = labelled_rig(9, 3, "light", rig=wide_rig(9, 3, "barrel"))
    rig = broken_rig(
        made.rig, lambda c: replace(corrections.turned_matrix(c) if matrix_too else c, width=480, height=640)
    )
    videos = {name: VideoHeader(640, 480, FRAMES, 30.0) for name in rig.names}
    report = check(made, rig, videos)
    assert only(report).evidence["kind"] == ("turned" if matrix_too else "kept")
    for fixed, true in zip(report.rig.cameras, made.rig.cameras, strict=True):
        assert (fixed.width, fixed.height) == (640, 480) and np.allclose(fixed.matrix, true.matrix)


def test_different_lengths_and_rates():
    made = labelled_rig(9, 3, "heavy")
    videos = {name: VideoHeader(256, 256, FRAMES + v, 30.0 - v) for v, name in enumerate(made.rig.names)}
    assert [f.fault for f in check(made, videos=videos).findings] == ["different_lengths", "different_rates"]
