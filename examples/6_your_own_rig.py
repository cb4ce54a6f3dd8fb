"""Your own footage: videos, a calibration file and another detector's 2D joints become a capture; then check and look.

    python examples/6_your_own_rig.py      (after example 1, whose videos stand in for yours)

`usthand.detect_labels(capture)` runs MediaPipe in place of importing joints.
"""

from pathlib import Path

import usthand
from usthand.labels.formats.openpose import write_openpose_json

# Stand-ins for what is on your disk: videos, a calibration, and OpenPose's JSON files.
source = usthand.open_capture("clip")
write_openpose_json(usthand.load_labels(source, "right"), Path("openpose"))

rig = usthand.load_calibration("clip/rig.toml")  # or Anipose's, Caliscope's, EasyMocap's ...: recognised by itself
print(f"{len(rig)} cameras: {', '.join(rig.names)}; lengths: {rig.unit_source}")

made = usthand.create_capture([Path("clip")], "clip/rig.toml", "own")
capture = made.capture
usthand.import_labels(capture, "openpose")
report = usthand.check_capture(capture)
for finding in report.findings:
    print(finding.sentence)
print("nothing wrong found" if not report.findings else f"{len(report.findings)} findings")

result = usthand.fit_labels(capture.rig, usthand.load_labels(capture, "right"), usthand.FitConfig(fps=capture.fps))
for path in usthand.write_overlays(capture, [result], "overlay"):
    print(path)
