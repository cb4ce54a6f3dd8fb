"""What `usthand evaluate` calls a millimetre is one, whatever unit the calibration is in."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from support.fit_scene import rig_in_unit
from usthand.capture.capture import open_capture
from usthand.capture.rig import save_rig
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.evaluation.evaluate import evaluate
from usthand.fit.fit import fit_labels
from usthand.fit.sequence import FitConfig
from usthand.geometry.cameras import project
from usthand.labels.labels import load_labels

UNITS_M = {"metres": 1.0, "millimetres": 0.001, "board squares": 0.03}
CONFIG = FitConfig(joint_model="soft", rounds=4)


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    """One capture with truth; its rig in metres, and without scale in three units."""
    folder = tmp_path_factory.mktemp("units")
    config = SynthConfig(views=3, frames=8, labels="light", size=128, seed=3)
    captures = {"metric": make_capture(folder / "metric", config)}
    for name, unit_m in UNITS_M.items():
        path = folder / name
        shutil.copytree(folder / "metric", path)
        save_rig(rig_in_unit(open_capture(path).rig, unit_m), path / "rig.toml")
        captures[name] = path
    return {name: open_capture(folder / name) for name in captures}


def numbers_of(capture, result) -> dict[str, float]:
    found = evaluate(result, capture)
    return {name: value for name, value in found.items() if name.rsplit("_", 1)[-1] in ("mm", "px", "s2")}


def test_every_number_with_a_unit_is_that_of_any_rig_without_scale(captures):
    found = {}
    for name in UNITS_M:
        labels = load_labels(captures[name], "right")
        found[name] = numbers_of(captures[name], fit_labels(captures[name].rig, labels, CONFIG))
    reference = found["metres"]
    assert {"mpjpe_mm", "mpvpe_pa_mm", "accel_mm_s2", "label_residual_median_px", "jitter_mm"} <= reference.keys()
    for name, numbers in found.items():
        assert numbers == pytest.approx(reference, rel=0.01, abs=1e-6), (
            name
        )  # a hand model's bones spread by rounding alone


def test_with_the_right_size_the_numbers_are_those_of_the_metric_rig(captures):
    """Were the hand of exactly mean size; then a rig with scale and one without give the same."""
    metric = captures["metric"]
    result = fit_labels(metric.rig, load_labels(metric, "right"), CONFIG)
    reference = numbers_of(metric, result)
    for name, unit_m in UNITS_M.items():
        same = replace(result, metric=False, unit_m=unit_m)
        assert numbers_of(captures[name], same) == pytest.approx(reference, rel=0.01, abs=1e-6), (
            name
        )  # a hand model's bones spread by rounding alone


def test_lengths_are_metres_whatever_the_calibrations_unit(captures):
    """A hand is 50 to 300 mm wide, and its joints divided by the unit project into the rig as it is."""
    for name, unit_m in UNITS_M.items():
        capture = captures[name]
        labels = load_labels(capture, "right")
        result = fit_labels(capture.rig, labels, CONFIG)
        assert not result.metric and result.unit_m == pytest.approx(unit_m, rel=0.15), "hands differ in size"
        assert 0.05 < np.ptp(result.vertices_world_m[0], axis=0).max() < 0.3
        own = torch.from_numpy(result.joints_world_m / result.unit_m)
        uv = project(capture.rig.tensors(torch.float64), own)[0].numpy()
        assert np.median(np.linalg.norm(uv - labels.uv_px, axis=-1)[labels.mask]) < 1.0
