"""The flow: it inverts, its log-determinant is the Jacobian's, its density is a density; and zuko agrees."""

from __future__ import annotations

import math

import pytest
import torch
import zuko
from torch import nn

from usthand.network.flow import ConditionalFlow


def random_flow(dims: int, seed: int = 0) -> ConditionalFlow:
    """With weights drawn at random: the zero-initialised layers alone would be tested too kindly."""
    torch.manual_seed(seed)
    flow = ConditionalFlow(dims, context=8, couplings=6, hidden=16).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.3)
    return flow


@pytest.fixture(params=[2, 42])
def case(request):
    flow = random_flow(request.param)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(5, request.param, generator=generator, dtype=torch.float64)
    context = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    centre = torch.rand(5, request.param, generator=generator, dtype=torch.float64) - 0.5
    return flow, z, context, centre


def test_the_inverse_inverts(case):
    flow, z, context, centre = case
    x, forward = flow.transform(z, context, centre)
    back, backward = flow.inverse(x, context, centre)
    assert (back - z).abs().max() < 1e-10
    assert (forward + backward).abs().max() < 1e-10


def test_the_log_determinant_is_the_jacobians(case):
    flow, z, context, centre = case
    for i in range(len(z)):
        jacobian = torch.autograd.functional.jacobian(lambda v, i=i: flow.transform(v, context[i], centre[i])[0], z[i])
        assert abs(torch.linalg.slogdet(jacobian)[1] - flow.transform(z[i], context[i], centre[i])[1]) < 1e-9


def test_log_prob_equals_zukos_transformed_gaussian(case):
    flow, z, context, centre = case

    class Wrapped(torch.distributions.Transform):
        domain = codomain = torch.distributions.constraints.real_vector
        bijective = True

        def __init__(self, i):
            super().__init__()
            self.i = i

        def _call(self, value):
            return flow.transform(value, context[self.i], centre[self.i])[0]

        def _inverse(self, value):
            return flow.inverse(value, context[self.i], centre[self.i])[0]

        def log_abs_det_jacobian(self, value, y):
            jacobian = torch.autograd.functional.jacobian(self._call, value)
            return torch.linalg.slogdet(jacobian)[1]

    x = flow.transform(z, context, centre)[0]
    for i in range(2):
        base = zuko.distributions.DiagNormal(torch.zeros_like(z[i]), torch.ones_like(z[i]))
        reference = zuko.distributions.NormalizingFlow(Wrapped(i).inv, base).log_prob(x[i])
        assert abs(reference - flow.log_prob(x[i], context[i], centre[i])) < 1e-8


def test_the_density_integrates_to_one():
    """On a grid of spacing h over a box that holds the mass; the midpoint rule's error falls fast with h for a smooth
    density, and 1 % is far above it here."""
    flow = random_flow(2, seed=3)
    context, centre = torch.zeros(8, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    samples = flow.sample(
        context, centre, torch.randn(4000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    low, high = samples.amin(0), samples.amax(0)
    margin = (high - low) * 0.3
    axes = [torch.linspace(low[k] - margin[k], high[k] + margin[k], 600, dtype=torch.float64) for k in range(2)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    with torch.no_grad():
        total = flow.log_prob(grid, context, centre).exp().sum() * cell
    assert abs(total - 1) < 0.01


def test_the_scale_depends_on_the_image():
    """Additive couplings would give every image the same entropy."""
    flow = random_flow(2)
    z = torch.zeros(2, 2, dtype=torch.float64)
    context = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    _, log_det = flow.transform(z, context, torch.zeros(2, 2, dtype=torch.float64))
    assert abs(log_det[0] - log_det[1]) > 1e-3


def test_it_starts_as_a_gaussian_around_the_heatmaps_estimate():
    flow = ConditionalFlow(2, context=8)
    centre = torch.tensor([[0.2, -0.3]])
    x = torch.tensor([[0.25, -0.3]])
    expected = -0.5 * (0.05 / 0.1) ** 2 - math.log(2 * math.pi * 0.1**2)
    assert abs(float(flow.log_prob(x, torch.randn(1, 8), centre).detach()) - expected) < 1e-5


def test_it_learns_an_unlikely_shape():
    """Two clusters whose place depends on the context: a Gaussian's best likelihood is beaten clearly."""
    torch.manual_seed(0)
    flow = ConditionalFlow(2, context=1, couplings=6, hidden=32)
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)

    def draw(n):
        sign = torch.randint(0, 2, (n, 1)) * 2.0 - 1
        return torch.cat((sign * 0.3, sign * 0.2), 1) + 0.03 * torch.randn(n, 2)

    for _ in range(300):
        loss = -flow.log_prob(draw(256), torch.ones(256, 1), torch.zeros(256, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = draw(2000)
    gaussian = torch.distributions.MultivariateNormal(test.mean(0), torch.cov(test.T))
    with torch.no_grad():
        gain = flow.log_prob(test, torch.ones(2000, 1), torch.zeros(2000, 2)).mean() - gaussian.log_prob(test).mean()
    assert gain > 0.2
