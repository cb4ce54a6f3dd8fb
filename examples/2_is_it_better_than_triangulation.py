"""Plain triangulation, the same smoothed, and the sequence fit, judged without truth: by a camera that took no part.

python examples/2_is_it_better_than_triangulation.py      (after example 1)
"""

from dataclasses import replace

import usthand

capture = usthand.open_capture("clip")
labels = usthand.load_labels(capture, "right")
judge = capture.rig.names[0]

rig = replace(capture.rig, cameras=tuple(camera for camera in capture.rig.cameras if camera.name != judge))
others = labels.without(judge)
results = {
    "triangulated": usthand.triangulate(rig, others),
    "smoothed": usthand.triangulate(rig, others, smooth_fps=capture.fps),
    "fit": usthand.fit_labels(rig, others, usthand.FitConfig(fps=capture.fps)),
}

print(f"distance from the labels of {judge}, which was left out, in its pixels:")
for name, result in results.items():
    numbers = usthand.evaluate(result, capture, leave_out=judge)
    print(f"{name:<13} median {numbers['leave_out_median_px']:.2f}   90 % {numbers['leave_out_p90_px']:.2f}")
