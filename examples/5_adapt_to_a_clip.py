"""Adapt the shipped weights to a clip's own 2D labels, then reconstruct with them.

    python examples/5_adapt_to_a_clip.py      (after example 1)

Forty steps show how it is done; `usthand train` takes 600.
"""

import usthand

config = usthand.TrainConfig(steps=40, side="right")
best = usthand.train(["clip"], "runs/clip", config)  # started again, it goes on where it was
print(f"best checkpoint by held-out labels: {best}")

capture = usthand.open_capture("clip")
result = usthand.reconstruct(capture, run="runs/clip", side="right")
print(f"{result.valid.sum()} of {len(result)} frames, mesh {usthand.evaluate(result, capture)['mpvpe_mm']:.1f} mm")
result.save("adapted.npz")
