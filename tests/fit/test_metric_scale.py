"""Rigs without metric scale: whatever unit the calibration is in, fit, training and hands are the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from support.fit_scene import make_scene, rig_in_unit
from support.trainings import SHORT
from usthand.capture.capture import open_capture
from usthand.capture.rig import Rig, save_rig
from usthand.data.prepare import consensus_labels, fit_hand, load_hand_2d
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.metrics import steadiness
from usthand.fit.fit import fit_labels
from usthand.fit.kinematics import articulation
from usthand.fit.metric_scale import scaled_by_hand
from usthand.fit.observations import Observations
from usthand.fit.sequence import FitConfig
from usthand.geometry.cameras import Cameras, project
from usthand.hand.io import right_hand
from usthand.hand.result import load_result
from usthand.reconstruction.reconstruct import reconstruct_all
from usthand.training.checkpoint import SHIPPED
from usthand.training.config import TrainConfig
from usthand.training.loop import train

UNITS_M = (0.001, 0.25)
"""Millimetres, and something large: the squares of a big board."""


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    """Three cameras, twelve frames, a rig in metres."""
    path = tmp_path_factory.mktemp("units") / "metric"
    return make_capture(path, SynthConfig(views=3, frames=12, labels="light", size=128, seed=3))


@pytest.fixture(scope="module")
def without_scale(metric):
    """The same capture in other units, by their length."""
    captures = {}
    for unit_m in UNITS_M:
        path = captures[unit_m] = metric.with_name(f"unit-{unit_m}")
        shutil.copytree(metric, path)
        save_rig(rig_in_unit(open_capture(metric).rig, unit_m), path / "rig.toml")
    return captures


@pytest.mark.parametrize("unit_m", [1e-5, 0.001, 0.25, 100.0])
def test_the_unit_is_found_by_the_size_of_the_hand(unit_m):
    """The same for every unit, and some percent of a hand from the truth: the subject is not of mean size."""
    scene = make_scene(n_frames=8)
    seen, model = Observations.from_labels(scene.labels), articulation(right_hand())
    same, own = scaled_by_hand(scene.rig, seen, model)
    assert same is scene.rig and own is None
    rig, found_m = scaled_by_hand(rig_in_unit(scene.rig, unit_m), seen, model)
    _, reference_m = scaled_by_hand(rig_in_unit(scene.rig, 1.0), seen, model)
    assert np.isclose(found_m, unit_m * reference_m, rtol=1e-6) and np.isclose(found_m, unit_m, rtol=0.15)
    assert rig.metric and "own unit" in rig.unit_source
    apart = np.ptp([camera.centre_world for camera in rig.cameras], axis=0)
    assert np.allclose(
        apart, reference_m * np.ptp([camera.centre_world for camera in scene.rig.cameras], axis=0), rtol=1e-6
    )


def test_a_hand_that_nothing_places_has_some_unit():
    """Of one camera's labels the fit refuses the rest; the unit is finite all the same."""
    scene = make_scene(n_frames=4)
    seen = Observations.from_labels(scene.labels)
    one = replace(seen, precision=seen.precision * (np.arange(len(scene.rig)) == 0)[:, None, None, None])
    assert scaled_by_hand(rig_in_unit(scene.rig, 0.001), one, articulation(right_hand()))[1] > 0


def test_consensus_labels_are_those_of_any_unit(without_scale):
    consensus = []
    for path in without_scale.values():
        capture = open_capture(path)
        hand = load_hand_2d(capture, "right")
        consensus.append(consensus_labels(hand, fit_hand(hand, capture.fps)))
    assert (consensus[0].confidence > 0.5).mean() > 0.5, "in millimetres nothing would be sure to six of them"
    assert np.allclose(consensus[0].confidence, consensus[1].confidence, atol=1e-3)
    assert np.allclose(consensus[0].uv_px, consensus[1].uv_px, atol=1e-2)


def test_a_training_is_that_of_any_unit(without_scale, tmp_path):
    logs = []
    for unit_m, path in without_scale.items():
        out = tmp_path / str(unit_m)
        train([path], out, TrainConfig(replace(SHORT, train=replace(SHORT.train, steps=4, points_from=0.25))))
        logs.append([json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][-1])
    a, b = ({k: v for k, v in log.items() if k != "seconds"} for log in logs)
    assert "hand2d" in a and a.keys() == b.keys()
    assert all(np.isclose(a[key], b[key], rtol=0.01) for key in a), (a, b)


def test_hands_are_those_of_any_unit_and_lie_on_the_images(without_scale, metric):
    known = reconstruct_all(open_capture(metric), SHIPPED, "right")
    found = {unit_m: reconstruct_all(open_capture(path), SHIPPED, "right") for unit_m, path in without_scale.items()}
    for answer in ("final", "network", "head"):
        small, large = (getattr(found[unit_m], answer) for unit_m in UNITS_M)
        assert not small.metric and "own unit" in small.unit_source
        assert np.isclose(small.unit_m / large.unit_m, UNITS_M[0] / UNITS_M[1], rtol=1e-4)
        assert np.allclose(small.std_mm, large.std_mm, rtol=1e-2) and np.allclose(
            small.std_mm, getattr(known, answer).std_mm, rtol=0.3
        )
        for name, power in (("joints_world_m", 1), ("vertices_world_m", 1), ("translation_m", 1), ("joints_cov_m2", 2)):
            a, b = getattr(small, name), getattr(large, name)
            assert np.allclose(a, b, rtol=1e-3, atol=2e-4**power), (answer, name)
        reference = getattr(known, answer)
        assert reference.metric
        ours, theirs = (
            _on_images(open_capture(path).rig.in_metres(result.unit_m), result.joints_world_m)
            for path, result in ((without_scale[UNITS_M[0]], small), (metric, reference))
        )
        assert np.median(np.linalg.norm(ours - theirs, axis=-1)) < 1.0, f"{answer}: px, metric and not"


def test_what_is_named_in_millimetres_is_in_millimetres(tmp_path):
    """Also after the file was saved and read; the mean hand is some percent off the subject."""
    scene, config = make_scene(n_frames=8), FitConfig(joint_model="rigid")
    metric = fit_labels(scene.rig, scene.labels, config)
    found = load_result(fit_labels(rig_in_unit(scene.rig, 0.25), scene.labels, config).save(tmp_path / "found.npz"))
    assert metric.unit_m == 1.0 and np.isclose(found.unit_m, 0.25, rtol=0.15)
    assert np.allclose(found.std_mm, metric.std_mm, rtol=0.2)
    ours, theirs = steadiness(found, 30.0), steadiness(metric, 30.0)
    assert np.isclose(ours["jitter_mm"], theirs["jitter_mm"], rtol=0.15)


def _on_images(rig: Rig, joints: np.ndarray) -> np.ndarray:
    cameras = Cameras(*(t.expand(len(joints), *t.shape) for t in rig.tensors(torch.float64)))
    return project(cameras, torch.from_numpy(joints))[0].numpy()


def test_the_fit_of_labels_is_that_of_any_unit():
    scene = make_scene(n_frames=8)
    a, b = (
        fit_labels(rig_in_unit(scene.rig, unit_m), scene.labels, FitConfig(joint_model="rigid")) for unit_m in UNITS_M
    )
    assert np.abs(a.joints_world_m - b.joints_world_m).max() < 1e-5
