"""The benchmark of left-out cameras runs on any labelled capture, and measures as `usthand evaluate` does."""

import json
from dataclasses import replace

import pytest

import usthand
from left_out import Config, main
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.labels.labels import load_npz


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    config = SynthConfig(views=4, frames=8, size=96, labels="light", seed=2)
    capture = usthand.open_capture(make_capture(tmp_path_factory.mktemp("left-out") / "cap", config))
    path = capture.labels_path("right")
    labels = load_npz(path)
    confidence = labels.confidence.copy()
    confidence[:, 3] = 0
    replace(labels, confidence=confidence).save(path)
    return capture


def test_numbers_are_those_of_evaluate(capture, tmp_path, capsys):
    """Of the one hand that has labels, in the camera asked for; one that never saw the hand is passed over."""
    out = tmp_path / "deep" / "out.json"
    main(Config(capture.path, out, cameras=("cam1", "cam3"), steps=0))
    assert "cam3    no label of this hand" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert set(found["cells"]) == {"right cam1"} and set(found["summary"]) == {"raw", "smooth", "fit"}
    labels = usthand.load_labels(capture, "right").without("cam1")
    rig = capture.rig.without("cam1")
    own = usthand.evaluate(usthand.triangulate(rig, labels), capture, leave_out="cam1")
    for name in ("leave_out_median_px", "leave_out_p90_px", "leave_out_coverage90", "finger_bone_spread_mm"):
        assert found["cells"]["right cam1"]["raw"][name] == pytest.approx(own[name])


def test_a_capture_without_labels_is_told(capture, tmp_path):
    with pytest.raises(usthand.UsthandError, match="has no camera to measure in"):
        main(Config(capture.path, tmp_path / "o.json", cameras=("cam3",), steps=0))
