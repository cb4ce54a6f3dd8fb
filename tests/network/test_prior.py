"""The points that stand for the flow's prior have its moments, and give the flow's own moments."""

from __future__ import annotations

import pytest
import torch

from support.networks import make_inputs, make_model
from usthand.network.config import ModelConfig
from usthand.network.flow import ConditionalFlow
from usthand.network.prior import LARGE_RULE, NODES, prior_rule, prior_samples
from usthand.reconstruction.inference import _shared

DRAWS = 100_000


def bent_flow(dims: int) -> ConditionalFlow:
    """Its couplings stretch and shift by functions of the other coordinates, so it is far from linear."""
    torch.manual_seed(3)
    flow = ConditionalFlow(dims, context=8, couplings=4, hidden=16).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return flow


@pytest.mark.parametrize(("count", "dims"), [(4, 2), (16, 2), (32, 2), (33, 2), (128, 42), (LARGE_RULE, 42)])
def test_samples_have_the_priors_mean_and_covariance(count, dims):
    points = prior_samples(count, dims)
    assert points.shape == (count, dims) and torch.equal(points, prior_samples(count, dims))
    assert points.mean(0).abs().max() < 1e-12
    assert (points.T @ points / count - torch.eye(dims)).abs().max() < 1e-12
    apart = torch.cdist(points, points) + torch.eye(count)
    assert apart.min() > 1e-3, "no point is there twice"


@pytest.mark.parametrize(("count", "dims"), [(2, 2), (16, 42), (17, 42)])
def test_a_few_samples_of_many_dimensions_have_unit_variances(count, dims):
    points = prior_samples(count, dims)
    assert points.mean(0).abs().max() < 1e-12
    assert (points.square().mean(0) - 1).abs().max() < 1e-12


def test_a_single_sample_is_the_key_one():
    assert torch.equal(prior_samples(1, 2), torch.zeros(1, 2, dtype=torch.float64))


def test_a_joints_rule_is_exact_for_polynomials():
    """Moments of the standard normal: E x^2k = (2k - 1)!!."""
    points, weights = prior_rule(2)
    assert len(points) == NODES**2 and abs(weights.sum() - 1) < 1e-12
    moments = {0: 1.0, 1: 0.0, 2: 1.0, 3: 0.0, 4: 3.0, 6: 15.0, 8: 105.0}
    for i, a in moments.items():
        for j, b in moments.items():
            mean = (weights * points[:, 0] ** i * points[:, 1] ** j).sum()
            assert abs(mean - a * b) < 1e-10 * max(1.0, a * b), (i, j)


@pytest.mark.parametrize("dims", [2, 42])
def test_the_rule_gives_the_flows_second_moments(dims):
    """Against 100,000 draws, whose standard errors follow from their own fourth moments.

    For a joint within five of these, in every entry. A whole hand's 256 points know each joint's spread to some 5 %.
    """
    flow = bent_flow(dims)
    generator = torch.Generator().manual_seed(1)
    context = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    centre = torch.zeros(6, dims, dtype=torch.float64)
    points, weights = prior_rule(dims)

    def offsets(noise: torch.Tensor) -> torch.Tensor:
        noise = torch.cat((noise.new_zeros(1, dims), noise)).expand(6, len(noise) + 1, dims)
        with torch.no_grad():
            samples = flow.sample(context, centre, noise)
        return (samples[:, 1:] - samples[:, :1]).unflatten(-1, (-1, 2)).transpose(1, 2)

    drawn = offsets(torch.randn(DRAWS, dims, generator=generator, dtype=torch.float64))
    products = drawn.unsqueeze(-1) * drawn.unsqueeze(-2)
    expected, error = products.mean(-3), products.std(-3) / DRAWS**0.5
    ruled = offsets(points)
    moment = (weights[:, None, None] * ruled.unsqueeze(-1) * ruled.unsqueeze(-2)).sum(-3)
    if dims == 2:
        assert ((moment - expected).abs() < 5 * error).all()
    else:
        size = expected.diagonal(dim1=-2, dim2=-1).sum(-1)
        off = moment.diagonal(dim1=-2, dim2=-1).sum(-1) / size - 1
        assert off.square().mean().sqrt() < 0.08


@pytest.mark.parametrize("flow", ["joint", "hand", "none"])
def test_frames_views_and_joints_share_the_points(flow):
    model, inputs = make_model(ModelConfig(**{**vars(make_model().config), "flow": flow})), make_inputs()
    points = prior_samples(16, model.prior_dims)
    shared = _shared(model, inputs, points)
    assert shared.shape == model.noise_shape(inputs, 16)
    assert (shared == points.float()).all()
