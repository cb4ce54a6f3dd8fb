"""Networks compute on the device they are given; tested without a GPU.

Torch's `meta` device computes nothing but knows where every tensor is. There a tensor that was left on the CPU is an
error, as it would be on a GPU.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from usthand.capture.capture import open_capture
from usthand.cli import main
from usthand.common.device import check_device
from usthand.common.errors import UsthandError
from usthand.data.batches import make_batch
from usthand.datasets.synthetic.write import SynthConfig, make_capture
from usthand.experiments.hamuco.model import HamucoLearner
from usthand.network.config import ModelConfig
from usthand.network.prior import prior_rule, prior_samples
from usthand.reconstruction.inference import _chunk, _shared
from usthand.reconstruction.reconstruct import ReconstructConfig, reconstruct
from usthand.training.config import OptimisationConfig, Preset, TrainConfig
from usthand.training.loop import load_hands, prepare_footages, start_training, train
from usthand.training.losses import total
from usthand.training.objective import UstHandLearner
from usthand.training.step import draw_batch

MODEL = ModelConfig(
    width=8,
    image_size=64,
    map_channels=16,
    graph_width=32,
    flow_hidden=16,
    couplings=2,
    point_width=32,
    hypotheses=4,
    blocks=2,
)
GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"))


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("captures") / "small"
    return make_capture(path, SynthConfig(views=3, frames=12, labels="heavy", size=128, seed=4))


@pytest.fixture
def answers(monkeypatch):
    """The few questions about values that code asks (is a lens bent?) have answers: yes, and pinhole."""
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: True)
    monkeypatch.setattr(torch.Tensor, "__int__", lambda self: 0)


def preset(**changes) -> Preset:
    model = replace(MODEL, **{k: changes.pop(k) for k in list(changes) if hasattr(MODEL, k)})
    return Preset(
        model, train=OptimisationConfig(steps=4, clips=2, clip_frames=3, single_frames=2, warmup=1, **changes)
    )


@pytest.mark.parametrize(
    ("learner", "changes"),
    [
        (UstHandLearner(), {"points_from": 1.0}),
        (UstHandLearner(), {"points_from": 0.0}),
        (UstHandLearner(), {"points_from": 0.0, "flow": "hand"}),
        (UstHandLearner(), {"points_from": 0.0, "flow": "none"}),
        (HamucoLearner(), {"targets": "labels"}),
    ],
    ids=["2D stages", "all stages", "flow of whole hands", "no flow", "HaMuCo-like"],
)
def test_a_step_leaves_nothing_on_the_cpu(capture, tmp_path, learner, changes, request):
    config = preset(**changes)
    footages, checks = prepare_footages(load_hands([capture], "right", None), config, tmp_path)
    state = start_training(config, footages, checks, tmp_path, learner, "meta")
    assert all(value.is_meta for value in state.average.state_dict().values())
    request.getfixturevalue("answers")
    loss = total(learner.terms(state.model, draw_batch(state, 0), config))
    loss.backward()
    assert loss.is_meta and all(p.grad.is_meta for p in state.model.parameters() if p.grad is not None)
    inputs, _ = make_batch([(footages[0], np.arange(3))], config.model.image_size, config.crop, None, "meta")
    assert learner.uv_crop(state.model, inputs).is_meta


def test_the_use_of_a_network_leaves_nothing_on_the_cpu(capture, tmp_path, request):
    """All that `estimate` does except the last step, which brings the numbers back."""
    config, learner = preset(), UstHandLearner()
    footages, _ = prepare_footages(load_hands([capture], "right", None), config, tmp_path)
    model = learner.build(config).to("meta").eval()
    inputs, _ = make_batch([(footages[0], np.arange(5))], config.model.image_size, config.crop, None, "meta")
    anchors, rule = prior_samples(4, 2), prior_rule(2)
    request.getfixturevalue("answers")
    prediction = model(inputs, _shared(model, inputs, anchors))
    samples = model.hypothesise(prediction.views, _shared(model, inputs, rule.points))
    with pytest.raises(NotImplementedError, match="copy out of meta"):
        _chunk(prediction, samples, rule.weights, inputs.crop_from_px, slice(0, 5))


def test_a_tensor_left_on_the_cpu_would_be_seen():
    """What the tests above rely on."""
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device="meta") + torch.zeros(3)


@pytest.mark.parametrize("device", [GPU])
def test_a_gpu_gives_what_the_cpu_gives(capture, tmp_path, device):
    """A run begun on the CPU goes on on the GPU; the results agree within float32's noise (TF32 included)."""
    config = preset()
    train([capture], tmp_path / "run", TrainConfig(replace(config, train=replace(config.train, steps=2))))
    train([capture], tmp_path / "gpu", TrainConfig(config, device=device))
    one, two = (
        reconstruct(open_capture(capture), tmp_path / "run", "right", ReconstructConfig(device=where))
        for where in ("cpu", device)
    )
    assert np.abs(one.joints_world_m - two.joints_world_m).max() < 1e-3


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "mps:9", "meta"])
def test_a_device_that_is_not_there_is_one_sentence(capture, tmp_path, capsys, name):
    with pytest.raises(UsthandError, match="cannot compute on the device"):
        check_device(name)
    for command in (
        ["train", str(capture), "--out", str(tmp_path / "run")],
        ["reconstruct", str(capture), "--out", str(tmp_path / "r.npz")],
        ["bench", "headline", "--cache", str(tmp_path / "run"), "--results", str(tmp_path / "r.npz")],
    ):
        with pytest.raises(SystemExit) as error:
            main([*command, "--device", name])
        assert error.value.code == 1 and not (tmp_path / "run").exists() and not (tmp_path / "r.npz").exists()
        said = capsys.readouterr().err
        assert f"cannot compute on the device '{name}'" in said and "leave --device out" in said
