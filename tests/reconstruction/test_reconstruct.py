"""Which networks are used, and which results come out of them."""

from __future__ import annotations

import numpy as np
import pytest

from support.trainings import SHORT, small_capture
from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.reconstruction import fusion
from usthand.reconstruction import reconstruct as module
from usthand.reconstruction.fusion import ADAPTED_VARIANCE_SCALE, VARIANCE_SCALE
from usthand.reconstruction.reconstruct import ReconstructConfig, reconstruct, reconstruct_all
from usthand.training.checkpoint import SHIPPED
from usthand.training.config import TrainConfig
from usthand.training.loop import train


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_capture(tmp_path_factory.mktemp("captures") / "small")


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "short"
    train([small], out, TrainConfig(SHORT))
    return out


@pytest.fixture
def fitted(monkeypatch):
    """The sources of every final fit."""
    seen, real = [], module.fit_networks_and_labels

    def fit(hand, sources, *rest):
        seen.append(sources)
        return real(hand, sources, *rest)

    monkeypatch.setattr(module, "fit_networks_and_labels", fit)
    return seen


def test_leaving_a_camera_out_keeps_it_out(small, trained):
    capture = open_capture(small)
    result = reconstruct(capture, trained, "right", ReconstructConfig(leave_out="cam1"))
    assert result.cameras == ("cam0", "cam2")
    with pytest.raises(UsthandError, match="no camera 'nine'"):
        reconstruct(capture, trained, "right", ReconstructConfig(leave_out="nine"))


def test_confidence_falls_as_the_samples_spread(small, trained):
    """In one image, joints in the order of their samples' spread are in the reverse order of their confidence."""
    estimates = reconstruct_all(open_capture(small), trained, "right").estimates
    seen = estimates.heatmap_confidence > 0
    assert ((estimates.confidence > 0) == seen).all() and (estimates.confidence <= 1).all()
    spread = estimates.cov_px2.trace(axis1=-2, axis2=-1)
    for t, v in np.argwhere(seen.all(-1))[::7]:
        assert (np.diff(estimates.confidence[t, v][np.argsort(spread[t, v])]) <= 1e-9).all()


@pytest.mark.parametrize("with_shipped", [True, False])
def test_the_shipped_network_is_a_second_source_beside_a_trained_one(small, trained, monkeypatch, fitted, with_shipped):
    """With the variance scales that belong to each, raised by how good the labels are."""
    monkeypatch.setattr(module, "label_excellence", lambda hand, fit: 3.0)
    sets_noise_scale, real = [], fusion.fit_observations

    def fit_observations(rig, both, *rest, **more):
        sets_noise_scale.append(None if both.sets_noise_scale is None else both.sets_noise_scale.tolist())
        return real(rig, both, *rest, **more)

    monkeypatch.setattr(fusion, "fit_observations", fit_observations)
    steps, config = [], ReconstructConfig(with_shipped=with_shipped)
    both = reconstruct_all(open_capture(small), trained, "right", config, lambda *at: steps.append(at[:2]))
    (sources,), views = fitted, 3
    scales = [ADAPTED_VARIANCE_SCALE * views, VARIANCE_SCALE[both.final.joint_model]][: 1 + with_shipped]
    assert [one.variance_scale for one in sources] == [3 * scale for scale in scales]
    assert sources[0].estimates is both.estimates and len({id(one.estimates) for one in sources}) == len(scales)
    # In the order of the views: the trained network, the shipped one, the labels.
    assert sets_noise_scale == [[False] * views + [True] * 2 * views if with_shipped else None]
    assert [one.predicts_model_joints for one in sources] == [False, True][: len(scales)]
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1] == len(scales) * len(both.final.valid)


def test_the_shipped_network_is_no_second_source_beside_itself(small, monkeypatch, fitted):
    monkeypatch.setattr(module, "label_excellence", lambda hand, fit: 1.0)
    reconstruct(open_capture(small))
    ((source,),) = fitted
    assert source.variance_scale in VARIANCE_SCALE.values() and source.predicts_model_joints


def test_without_a_run_the_shipped_weights_are_used_on_the_only_labelled_hand(small):
    one, other = reconstruct(open_capture(small)), reconstruct(open_capture(small), SHIPPED, "right")
    assert np.array_equal(one.joints_world_m, other.joints_world_m)


def test_the_networks_own_results_need_no_final_fit_and_no_second_network(small, trained, monkeypatch):
    capture = open_capture(small)
    everything = reconstruct_all(capture, trained, "right")
    used, estimate = [], module.estimate
    monkeypatch.setattr(module, "estimate", lambda *a: used.append(1) or estimate(*a))
    for name in ("fit_networks_and_labels", "label_excellence"):
        monkeypatch.setattr(module, name, lambda *a: pytest.fail("the final fit was computed"))
    for answer in ("network", "head"):
        result, expected = (
            reconstruct(capture, trained, "right", ReconstructConfig(answer=answer)),
            getattr(everything, answer),
        )
        for name in ("joints_world_m", "joints_cov_m2", "vertices_world_m", "valid"):
            assert np.array_equal(getattr(result, name), getattr(expected, name)), (answer, name)
    assert len(used) == 2
