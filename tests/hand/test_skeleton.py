"""Lengths of bones and palm: those of a hand made of whole numbers, of any batch axes."""

from __future__ import annotations

import numpy as np

from usthand.hand.skeleton import (
    BONES,
    INTERHAND_TO_OPENPOSE,
    JOINTS,
    bone_lengths,
    inverse_order,
    median_bone_lengths,
    palm_length,
)


def straight_hand() -> np.ndarray:
    """Joint k at x = k^2, so that every bone has a length of its own."""
    return np.stack([np.arange(21.0) ** 2, np.zeros(21), np.zeros(21)], axis=-1)


def test_bones_and_palm_have_the_lengths_of_their_ends():
    joints = straight_hand()
    wanted = [child**2 - parent**2 for parent, child in BONES]
    assert np.array_equal(bone_lengths(joints), wanted) and palm_length(joints) == 81
    batch = np.broadcast_to(joints, (4, 2, 21, 3)) * 2
    assert bone_lengths(batch).shape == (4, 2, 20) and (palm_length(batch) == 162).all()


def test_the_median_takes_frames_that_see_both_ends():
    joints = np.stack([straight_hand() * factor for factor in (1, 2, 3, 100)])
    seen = np.ones((4, 21), bool)
    seen[3] = False
    seen[:, 8] = False
    length, known = median_bone_lengths(joints, seen)
    tip = [child for _, child in BONES].index(8)
    assert not known[tip] and length[tip] == 0 and known.sum() == 19
    assert np.array_equal(length[known], 2 * bone_lengths(straight_hand())[known])


def test_interhands_order_runs_from_tip_to_base_with_the_wrist_last():
    names = [JOINTS[i] for i in inverse_order(INTERHAND_TO_OPENPOSE)]
    assert names[:4] == ["thumb_tip", "thumb_ip", "thumb_mcp", "thumb_cmc"] and names[20] == "wrist"
