"""Which networks are used, and which results come out of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.trainings import SHORT, small_capture
from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.fit.observations import Source
from usthand.hand.io import right_hand
from usthand.labels.labels import load_labels
from usthand.reconstruction import fusion
from usthand.reconstruction import reconstruct as module
from usthand.reconstruction.fusion import ADAPTED_VARIANCE_SCALE, SHIPPED_COMMON_PART
from usthand.reconstruction.inference import observations
from usthand.reconstruction.network_results import head_result
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
    """The networks of every final fit, and the observations that the fit got of them and of the labels."""
    networks, observed = [], []
    fit_all, fit_observations = module.fit_networks_and_labels, fusion.fit_observations

    def fit(hand, sources, *rest):
        networks.append(sources)
        return fit_all(hand, sources, *rest)

    def fit_one(rig, everything, *rest, **more):
        observed.append(everything)
        return fit_observations(rig, everything, *rest, **more)

    monkeypatch.setattr(module, "fit_networks_and_labels", fit)
    monkeypatch.setattr(fusion, "fit_observations", fit_one)
    return networks, observed


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
def test_the_shipped_network_is_a_second_source_beside_a_trained_one(small, trained, fitted, with_shipped):
    """One camera each, seen by several sources; each is known for what it predicts and how far its errors are its own.

    The trained network learned the labels: it predicts what their detector sees, all its views err alike, and its
    residuals say nothing about its errors. The shipped one predicts the hand model's joints.
    """
    capture, steps = open_capture(small), []
    config = ReconstructConfig(with_shipped=with_shipped)
    both = reconstruct_all(capture, trained, "right", config, lambda *at: steps.append(at[:2]))
    ((networks,), (seen,)), count = fitted, 1 + with_shipped
    assert networks[0].estimates is both.estimates and len({id(one.estimates) for one in networks}) == count
    assert [one.adapted for one in networks] == [True, False][:count]
    adapted = Source("adapted network", detected=True, sets_noise_scale=False, common_part=1.0)
    shipped = Source("shipped network", detected=False, sets_noise_scale=True, common_part=SHIPPED_COMMON_PART)
    detector = Source("detector", detected=True, sets_noise_scale=True, common_part=0.0)
    assert seen.sources == ((adapted, shipped, detector) if with_shipped else (adapted, detector))
    assert seen.uv_px.shape[:4] == (len(both.final), count + 1, 3, 21)
    for k, (one, scale) in enumerate(zip(networks, (ADAPTED_VARIANCE_SCALE, 1.0), strict=False)):
        alone = observations(one.estimates)
        assert np.array_equal(seen.uv_px[:, [k]], alone.uv_px)
        assert np.allclose(seen.precision[:, [k]] * scale, alone.precision, rtol=1e-12)
    labels = load_labels(capture, "right")
    assert np.allclose(seen.uv_px[:, -1], labels.uv_px, rtol=0, atol=1e-3)
    assert np.array_equal(seen.precision[:, -1].trace(axis1=-2, axis2=-1) > 0, labels.mask)
    assert both.final.cameras == capture.rig.names, "a camera that several sources see is one camera"
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1] == count * len(both.final.valid)


def test_the_shipped_network_is_no_second_source_beside_itself(small, fitted):
    reconstruct(open_capture(small))
    ((network,),), (seen,) = fitted
    assert not network.adapted and [one.name for one in seen.sources] == ["shipped network", "detector"]


def test_without_a_run_the_shipped_weights_are_used_on_the_only_labelled_hand(small):
    one, other = reconstruct(open_capture(small)), reconstruct(open_capture(small), SHIPPED, "right")
    assert np.array_equal(one.joints_world_m, other.joints_world_m)


def test_the_networks_own_results_need_no_final_fit_and_no_second_network(small, trained, monkeypatch):
    capture = open_capture(small)
    everything = reconstruct_all(capture, trained, "right")
    used, estimate = [], module.estimate
    monkeypatch.setattr(module, "estimate", lambda *a: used.append(1) or estimate(*a))
    monkeypatch.setattr(module, "fit_networks_and_labels", lambda *a: pytest.fail("the final fit was computed"))
    for answer in ("network", "head"):
        result, expected = (
            reconstruct(capture, trained, "right", ReconstructConfig(answer=answer)),
            getattr(everything, answer),
        )
        for name in ("joints_world_m", "joints_cov_m2", "vertices_world_m", "valid"):
            assert np.array_equal(getattr(result, name), getattr(expected, name)), (answer, name)
    assert len(used) == 2


def test_the_hand_heads_mesh_says_nothing_of_its_uncertainty(small):
    """Whatever the surface's covariances were: they are of another mesh."""
    everything = reconstruct_all(open_capture(small))
    assert everything.final.has_vertices_cov and not everything.head.has_vertices_cov
    count = everything.network.vertices_world_m.shape[1]
    cov = np.broadcast_to(np.eye(3), (len(everything.network), count, 3, 3))
    certain = replace(everything.network, vertices_cov_m2=cov)
    again = head_result(certain, everything.estimates, right_hand())
    assert not again.has_vertices_cov and np.array_equal(again.vertices_world_m, everything.head.vertices_world_m)
