"""The network with the weights that come with usthand: no training, three results.

python examples/4_without_training.py      (after example 1)
"""

import usthand

capture = usthand.open_capture("clip")
for answer in ("network", "head", "final"):
    # The mesh fitted to the network's points, the mesh of its hand head, and the sequence fit on all evidence.
    config = usthand.ReconstructConfig(answer=answer)
    result = usthand.reconstruct(capture, side="right", config=config)
    numbers = usthand.evaluate(result, capture)
    print(f"{answer:<8} joints {numbers['mpjpe_mm']:.1f} mm, mesh {numbers['mpvpe_mm']:.1f} mm")
    result.save(f"{answer}.npz")
