"""Faults of labels and of the hand in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.check_captures import FRAMES, broken_labels, broken_rig, check, faults, labelled_rig, only
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.diagnostics import corrections
from usthand.hand.skeleton import inverse_order


def test_labels_of_another_size():
    made = broken_labels(labelled_rig(9, 3, "heavy"), lambda one: replace(one, uv_px=(one.uv_px + 0.5) * 2 - 0.5))
    finding = only(check(made))
    assert finding.fault == "wrong_size" and finding.evidence["kind"] == "labels"


@pytest.mark.parametrize("views", [None, [1]], ids=["all", "one"])
def test_mirrored_labels(views):
    made = labelled_rig(14, 4, "heavy")

    def mirrored(one):
        uv = one.uv_px.copy()
        for v in range(4) if views is None else views:
            uv[:, v, :, 0] = made.rig.cameras[v].width - 1 - uv[:, v, :, 0]
        return replace(one, uv_px=uv)

    report = check(broken_labels(made, mirrored))
    finding = only(report)
    assert finding.fault == "mirrored_labels" and finding.cameras == (made.rig.names if views is None else ("cam1",))
    assert np.allclose(report.labels[0].uv_px, made.labels[0].uv_px, atol=1e-3)


@pytest.mark.parametrize("declared,true", [("left", "right"), ("right", "left")])
def test_wrong_side(declared, true):
    made = broken_labels(labelled_rig(15, 3, "heavy", sides=(true,)), lambda one: replace(one, side=declared))
    report = check(made)
    assert only(report).fault == "wrong_side"
    assert [one.side for one in report.labels] == [true]


@pytest.mark.parametrize("name", corrections.ORDERS)
def test_joint_orders(name):
    made = labelled_rig(16, 3, "heavy")
    index = list(inverse_order(corrections.ORDERS[name]))
    wrong = broken_labels(
        made, lambda one: replace(one, uv_px=one.uv_px[:, :, index], confidence=one.confidence[:, :, index])
    )
    report = check(wrong)
    finding = only(report)
    assert finding.fault == "joint_order" and finding.evidence["order"] == name
    assert np.allclose(report.labels[0].uv_px, made.labels[0].uv_px)
    assert np.allclose(report.labels[0].confidence, made.labels[0].confidence)


def test_another_order_in_one_camera():
    made = labelled_rig(16, 4, "heavy")
    name = next(iter(corrections.ORDERS))
    index = list(inverse_order(corrections.ORDERS[name]))

    def wrong(one):
        uv, confidence = one.uv_px.copy(), one.confidence.copy()
        uv[:, 2], confidence[:, 2] = uv[:, 2, index], confidence[:, 2, index]
        return replace(one, uv_px=uv, confidence=confidence)

    report = check(broken_labels(made, wrong))
    assert faults(report) == [("joint_order", ("cam2",))]
    assert np.allclose(report.labels[0].confidence, made.labels[0].confidence)


def test_small_hand():
    made = labelled_rig(17, 3, "light")
    small = replace(
        made,
        rig=broken_rig(made.rig, lambda c: corrections.resized(c, 40, 40)),
        labels=tuple(replace(one, uv_px=(one.uv_px + 0.5) * 40 / 256 - 0.5) for one in made.labels),
    )
    finding = only(check(small))
    assert finding.fault == "small_hand" and finding.severity == "warning" and finding.cameras == made.rig.names


def test_too_few_views_and_a_camera_that_sees_nothing():
    made = labelled_rig(17, 3, "light")
    frames, views = np.arange(FRAMES)[:, None, None], np.arange(3)[None, :, None]

    def blind(hidden):
        return broken_labels(made, lambda one: replace(one, confidence=np.where(hidden, 0, one.confidence)))

    assert faults(check(blind(views == 1))) == [("hand_not_seen", ("cam1",))]
    report = check(blind((views != frames % 3) & (frames > FRAMES // 4)))
    assert "too_few_views" in [finding.fault for finding in report.findings]


def test_one_camera_or_no_labels():
    made = labelled_rig(17, 2, "light", frames=40)
    alone = replace(made, rig=Rig(made.rig.cameras[:1]), labels=tuple(one.subset(["cam0"]) for one in made.labels))
    assert only(check(alone)).fault == "too_few_views"
    empty = broken_labels(made, lambda one: replace(one, confidence=np.zeros_like(one.confidence)))
    with pytest.raises(UsthandError, match="no label"):
        check(empty)
    foreign = broken_labels(made, lambda one: replace(one, cameras=("cam0", "other")))
    with pytest.raises(UsthandError, match="'other'"):
        check(foreign)
