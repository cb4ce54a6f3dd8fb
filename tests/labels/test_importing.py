"""Importing labels: frames, sides and people are told apart, and every error is one sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.hands_in_views import exact_uv, people
from support.label_files import (
    N_FRAMES,
    OTHER,
    as_whole_body,
    assert_same,
    each,
    instance,
    told,
    write,
    write_hands_json,
    write_hands_npz,
    write_holistic_csv,
    write_openpose,
)
from support.type_checks import unchecked
from usthand.capture.offsets import Overlap
from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.labels.importing import FORMATS, ImportConfig, import_labels
from usthand.labels.labels import load_labels


def test_several_people_in_openpose_files(capture, tmp_path):
    """Two people, in another order in every file: four files of labels, named in the report; right-2 reads one."""
    rig = capture.rig
    hands = {name: exact_uv(rig, joints) for name, joints in people(N_FRAMES).items()}
    rng = np.random.default_rng(0)
    for t in range(N_FRAMES):
        for v, camera in enumerate(rig.names):
            points = {name: np.c_[uv[t, v], np.full(21, 0.9)].reshape(-1).tolist() for name, uv in hands.items()}
            persons = [
                {f"hand_{side}_keypoints_2d": points[f"{side} of {k}"] for side in OTHER} for k in rng.permutation(2)
            ]
            write(tmp_path / "in" / camera / f"{t:06d}_keypoints.json", {"people": persons})
    labels = import_labels(capture, tmp_path / "in")
    assert list(labels) == ["right", "right-2", "left", "left-2"] == list(capture.label_hands())
    assert "4 hands" in labels.people and "--side right-2" in labels.people
    found = {side: load_labels(capture, side).uv_px for side in ("right", "right-2")}
    for uv in found.values():
        assert any(np.allclose(uv, hands[f"right of {k}"], atol=1e-3) for k in range(2))
    assert np.abs(found["right"] - found["right-2"]).max() > 50
    # One person's hands later on: the other's files go.
    import_labels(capture, tmp_path / "in", ImportConfig(overwrite=True, max_hands=2))
    assert capture.label_hands() == ("right", "left")


def test_sides_as_in_a_mirror_are_found_out(seen, capture, tmp_path, capsys):
    """Files whose sides are all wrong are swapped, and the report says so; others are not."""
    write_hands_json(
        replace(
            seen,
            uv_px={s: seen.uv_px[OTHER[s]] for s in OTHER},
            confidence={s: seen.confidence[OTHER[s]] for s in OTHER},
        ),
        tmp_path / "in",
    )
    swapped = import_labels(capture, tmp_path / "in")
    assert_same(swapped, seen, True)
    assert swapped.notes[0].startswith("Sides are swapped: only 0 of") and len(swapped.notes) == 2
    write_hands_json(seen, tmp_path / "good")
    kept = import_labels(capture, tmp_path / "good", ImportConfig(overwrite=True))
    assert_same(kept, seen, True)
    assert kept.notes == ("hands-npz: hands in single images of each camera: c0 12, c1 11, c2 12.",)
    assert capsys.readouterr().out == ""
    wrong = import_labels(capture, tmp_path / "good", ImportConfig(overwrite=True, swap_sides="yes"))
    assert wrong["right"].side == "right" and not np.allclose(wrong["right"].uv_px, seen.uv_px["right"], atol=1)


def test_frames_are_counted_from_where_the_user_says(seen, capture, tmp_path):
    for t, v, name in each(seen):
        write(tmp_path / "in" / name / f"{t + 26:06d}.json", [instance(as_whole_body(seen, t, v))])
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "in")
    told(error, "frames 26 to 31", "0 to 5", "--first-frame 26")
    assert_same(import_labels(capture, tmp_path / "in", ImportConfig(first_frame=26)), seen, True)


def test_files_count_the_frames_of_their_own_video(seen, capture, tmp_path):
    """Camera c1 started two frames early and runs three longer: its files' frame t + 2 is the capture's frame t."""
    n = capture.n_frames
    shared = Overlap(((0, n), (2, n + 2), (0, n)), {"c1": (2, 3)})
    for t, v, name in each(seen):
        write(tmp_path / "in" / name / f"{t + 2 * (name == 'c1'):06d}.json", [instance(as_whole_body(seen, t, v))])
    late = replace(capture, overlap=shared)
    assert_same(import_labels(late, tmp_path / "in"), seen, True)
    write(tmp_path / "in" / "c1" / f"{n + 5:06d}.json", [instance(as_whole_body(seen, 0, 1))])
    with pytest.raises(UsthandError) as error:
        import_labels(late, tmp_path / "in", ImportConfig(overwrite=True))
    told(error, "of c1", f"its video has 0 to {n + 4}")


# ---- errors --------------------------------------------------------------------------------------------------------


def test_cameras_that_do_not_match(seen, capture, tmp_path):
    write_openpose(seen, tmp_path / "in")
    (tmp_path / "in" / "c1").rename(tmp_path / "in" / "middle")
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "in")
    told(error, "no labels of camera c1", "c0, c1, c2", "c0, c2, middle", "rename")
    write_hands_npz(
        replace(seen, rig=Rig(tuple(replace(c, name=c.name.upper()) for c in seen.rig.cameras))), tmp_path, single=True
    )
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "all.npz")
    told(error, "C0, C1, C2", "c0, c1, c2")
    write_holistic_csv(seen, tmp_path / "csv")
    shifted = replace(capture, rig=Rig(tuple(replace(c, name=f"cam_{k + 1}") for k, c in enumerate(seen.rig.cameras))))
    with pytest.raises(UsthandError) as error:
        import_labels(shifted, tmp_path / "csv")
    told(error, "ports 0, 1, 2", "cam_1, cam_2, cam_3")


def test_labels_are_not_written_over(seen, capture, tmp_path):
    write_openpose(seen, tmp_path / "in")
    import_labels(capture, tmp_path / "in")
    before = capture.labels_path("right").read_bytes()
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "in")
    told(error, "exists", "usthand import-labels", "--overwrite")
    assert capture.labels_path("right").read_bytes() == before


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_refuses_another_and_what_is_not_there(seen, capture, tmp_path, format):
    names = seen.rig.names
    suffix = {"holistic-csv": "csv", "hands-npz": "npz"}.get(format, "json")
    for name in names:
        path = tmp_path / "in" / (f"{name}/0_keypoints.json" if format == "openpose" else f"{name}.{suffix}")
        write(path, {"something": "else"})
    for source in (tmp_path / "in", tmp_path / "nothing"):
        with pytest.raises(UsthandError) as error:
            import_labels(capture, source, ImportConfig(format=format))
        told(error, str(source))
    with pytest.raises(UsthandError):
        import_labels(capture, tmp_path / "in")
    assert not capture.label_hands()


def test_unknown_format(capture, tmp_path):
    with unchecked(), pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path, ImportConfig(format="sapiens"))
    told(error, "sapiens", "openpose", "holistic-csv")


def test_no_hand_that_two_views_agree_on(seen, capture, tmp_path):
    write_openpose(seen, tmp_path / "in")
    for name in seen.rig.names[1:]:
        for path in (tmp_path / "in" / name).iterdir():
            write(path, {"people": []})
    with pytest.raises(UsthandError) as error:
        import_labels(capture, tmp_path / "in")
    told(error, "two cameras at once", "12 hands in single images")
    assert not capture.label_hands()
