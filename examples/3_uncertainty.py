"""What a covariance says, and whether it can be trusted: regions that should hold 50 and 90 % of the joints, counted.

python examples/3_uncertainty.py      (after example 1)
"""

import numpy as np
from scipy.stats import chi2

import usthand
from usthand.evaluation.truth import load_truth

capture = usthand.open_capture("clip")
result = usthand.load_result("fit.npz")

values, axes = np.linalg.eigh(result.joints_cov_m2)  # (T, 21, 3), (T, 21, 3, 3): m^2, and directions in the world
worst = int(np.argmax(result.std_mm.mean(0)))
print(f"least certain joint: number {worst}, {result.std_mm[:, worst].mean():.1f} mm along its least certain direction")

if result.has_vertices_cov:  # every vertex of the mesh has a covariance too
    print(f"surface: {result.vertices_std_mm.mean():.1f} mm along the least certain direction, on average")

sure = result.keep(max_std_mm=5)  # the same result; joints less certain than 5 mm are marked invalid
print(f"joints more certain than 5 mm: {sure.joint_valid.mean():.0%}")

# Truth is for measuring only. The squared Mahalanobis distance of a 3D Gaussian follows chi-square with 3 degrees.
error = load_truth("clip", "right").joints_world_m - result.joints_world_m
squared = np.einsum("tji,tjik,tjk->tj", error, np.linalg.inv(result.joints_cov_m2), error)
for level in (0.5, 0.9):
    held = (squared <= chi2.ppf(level, 3))[result.joint_valid].mean()
    print(f"{level:.0%} regions hold {held:.0%} of the joints")
