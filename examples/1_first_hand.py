"""From nothing to a hand in 3D, in under a minute: data that the example makes itself, one fit, errors against truth.

    python examples/1_first_hand.py

It leaves a folder `clip`, which the other examples use.
"""

from pathlib import Path

import usthand
from usthand.datasets.synthetic.write import SynthConfig, make_capture

CLIP = Path("clip")

if not CLIP.exists():  # three cameras, one second, labels as noisy as a real detector's
    make_capture(CLIP, SynthConfig(views=3, frames=30, size=160, labels="heavy", seed=2))

capture = usthand.open_capture(CLIP)
labels = usthand.load_labels(capture, "right")  # 2D joints: (30 frames, 3 views, 21 joints, 2) px
result = usthand.fit_labels(capture.rig, labels, usthand.FitConfig(fps=capture.fps))

print(f"index tip in the first frame, world, m: {result.joint('index_tip')[0].round(3)}")
print(f"its standard deviation along the least certain direction: {result.std_mm[0, 8]:.1f} mm")
print(f"mesh: {result.vertices_world_m.shape[1]} vertices")

numbers = usthand.evaluate(result, capture)  # a synthetic capture has truth to compare with
print(f"mean joint error {numbers['mpjpe_mm']:.1f} mm, mesh {numbers['mpvpe_mm']:.1f} mm (absolute)")
result.save("fit.npz")
