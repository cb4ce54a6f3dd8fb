"""A finding: a fault with its evidence, in one sentence, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from usthand.diagnostics.camera_faults import LensFault, MovedCamera
from usthand.diagnostics.candidate_faults import CandidateFault
from usthand.diagnostics.hand_faults import JointOrder
from usthand.diagnostics.search import FaultEvidence, FoundFault

Severity = Literal["error", "warning"]
Evidence = dict[str, float | int | str | list[float]]
"""By name. `before_px` and `after_px`: epipolar error before and after the fix; `before`, `after`: the same in hand
sizes."""

CALIBRATE = "calibrate again, or take the fixed rig that `--fix` writes"


@dataclass(frozen=True)
class Finding:
    """One fault of a capture."""

    fault: str
    """A word for programs; docs/check.md lists them."""
    cameras: tuple[str, ...]
    sentence: str
    fix: str
    """What to do, in words."""
    evidence: Evidence = field(default_factory=dict)
    severity: Severity = "error"
    """An error makes results wrong; a warning makes them poor."""

    def as_json(self) -> dict[str, object]:
        """The finding for programs."""
        rounded = {k: round(float(v), 4) if isinstance(v, float | np.floating) else v for k, v in self.evidence.items()}
        return {
            "fault": self.fault,
            "cameras": list(self.cameras),
            "severity": self.severity,
            "sentence": self.sentence,
            "mend": self.fix,  # named as in the first release, because users' scripts read it
            "evidence": rounded,
        }


def who(names: tuple[str, ...], everything: bool) -> str:
    """Name some cameras: "all cameras", "camera a" or "cameras a and b"."""
    if everything:
        return "all cameras"
    if len(names) == 1:
        return f"camera {names[0]}"
    return f"cameras {', '.join(names[:-1])} and {names[-1]}"


def _cut(evidence: FaultEvidence, doing: str) -> str:
    """The evidence in words: the epipolar error, or where that hardly changes, what else does."""
    before_px, after_px = f"{evidence.before_px:.3g}", f"{evidence.after_px:.2g}"
    if evidence.before_px > 1.5 * evidence.after_px and evidence.behind_before < 0.5:
        return f"{doing} cuts the epipolar error from {before_px} to {after_px} px"
    if evidence.behind_before > 0.1:
        return (
            f"{doing} brings {100 * (evidence.behind_before - evidence.behind_after):.0f} % of the joints in front of "
            f"the cameras that see them, and leaves an epipolar error of {after_px} px (before: {before_px} px)"
        )
    return (
        f"{doing} cuts the distance between each camera's labels and the others' from {100 * evidence.before:.0f} "
        f"to {100 * evidence.after:.0f} % of the hand's size (epipolar error {evidence.before_px:.2g} to {after_px} px)"
    )


SENTENCES: dict[tuple[str, str], tuple[str, str, str]] = {
    ("inverted_extrinsics", "inverted"): (
        "the extrinsics of {who} look camera-to-world",
        "inverting them",
        "write world-to-camera: R' = R^T, t' = -R^T t",
    ),
    ("inverted_extrinsics", "centre"): (
        "the translation of {who} looks like the camera's centre",
        "using -R c instead",
        "write t = -R c",
    ),
    ("inverted_extrinsics", "transposed"): (
        "the rotation of {who} looks transposed, the translation does not",
        "transposing it",
        "write R' = R^T",
    ),
    ("flipped_axes", "opengl"): (
        "the camera axes of {who} look like OpenGL's (y up, z backwards)",
        "negating y and z",
        "negate the second and third row of R and t",
    ),
    ("flipped_axes", "opengl_inverted"): (
        "the extrinsics of {who} look camera-to-world with OpenGL's axes, as nerfstudio and Blender write them",
        "inverting them and negating y and z",
        "invert them, then negate the second and third row of R and t",
    ),
    ("flipped_axes", "bottom_up"): (
        "the labels of {who} look counted from the lower edge of the image",
        "v' = height - 1 - v",
        "write v from the upper edge",
    ),
    ("mirrored_labels", "mirrored"): (
        "the labels of {who} look mirrored left to right",
        "u' = width - 1 - u",
        "detect again on images that are not mirrored (webcams often mirror), or unmirror the labels; "
        "if the video is mirrored, unmirror it too",
    ),
    ("upside_down", "turned"): (
        "the images of {who} look turned upside down against the calibration",
        "turning the labels by 180 degrees",
        "turn the video as it was in the calibration",
    ),
    ("wrong_unit", "one"): (
        "the translation of {who} looks to be in another unit than the others'",
        "multiplying it by {value:g}",
        "write all translations in metres",
    ),
    ("wrong_size", "matrix"): (
        "the matrix of {who} looks to be of images of another size",
        "multiplying it by {value:.3g}",
        "scale fx, fy, cx, cy with the image size",
    ),
    ("wrong_size", "labels"): (
        "the labels of {who} look to be of images of another size",
        "multiplying them by {value:.3g}",
        "detect again in the videos of this capture",
    ),
    ("wrong_size", "turned"): (
        "the matrix of {who} looks to have width and height exchanged",
        "exchanging fx with fy and cx with cy",
        "exchange fx with fy and cx with cy",
    ),
    ("wrong_lens", "fisheye"): (
        "the lens of {who} looks like a fisheye that is read as a pinhole",
        "reading the same numbers as OpenCV's fisheye model",
        'set model = "fisheye"',
    ),
    ("wrong_lens", "pinhole"): (
        "the lens of {who} looks like a pinhole that is read as a fisheye",
        "reading the same numbers as OpenCV's pinhole model",
        'set model = "pinhole"',
    ),
    ("wrong_lens", "undistorted"): (
        "the images of {who} look undistorted already",
        "leaving the distortion out",
        "remove the distortion, or use the original videos",
    ),
    ("wrong_lens", "fitted"): (
        "the distortion of {who} looks wrong or lost: the residual grows with the distance from the image's centre",
        "a lens with k1 = {value[0]:.2f} and k2 = {value[1]:.2f}",
        "calibrate the lens again; the fixed rig's distortion is only roughly right",
    ),
    ("swapped_cameras", "videos"): (
        "{who} look exchanged",
        "{exchange}",
        "rename the videos, or exchange their entries in rig.toml",
    ),
    ("swapped_cameras", "extrinsics"): (
        "the extrinsics of {who} look exchanged",
        "{exchange}",
        "exchange their rotation and translation in rig.toml",
    ),
    ("joint_order", "one"): (
        "the labels of {who} look to be in another joint order than the others': {value}",
        "taking them in OpenPose's order",
        "write OpenPose's order",
    ),
}
"""(fault, kind): what seems wrong, the fix as a subject, what to do."""


def describe(candidate: CandidateFault, names: tuple[str, ...]) -> tuple[str, str, str]:
    """What seems wrong, the fix as a subject, and what to do, in words."""
    chosen = tuple(names[v] for v in candidate.views)
    swapped = candidate.fault == "swapped_cameras"
    exchange = "exchanging them"
    if isinstance(candidate.value, tuple) and swapped and len(chosen) > 2:
        pairs = [f"{names[v]} <- {names[int(candidate.value[v])]}" for v in candidate.views]
        exchange = f"putting them back ({', '.join(pairs)})"
    words = {"who": who(chosen, len(chosen) == len(names) and not swapped), "value": candidate.value}
    wrong, doing, fix = SENTENCES[candidate.fault, candidate.kind]
    return wrong.format(**words), doing.format(exchange=exchange, **words), fix


def from_found(found: FoundFault, names: tuple[str, ...]) -> Finding:
    """A gross fault."""
    candidate, evidence = found.candidate, found.evidence
    wrong, doing, fix = describe(candidate, names)
    sentence = f"{wrong}: {_cut(evidence, doing)}"
    if found.alternatives:
        sentence += f"; also possible: {'; '.join(describe(other, names)[0] for other in found.alternatives)}"
    if len(names) == 2:
        sentence += "; two cameras alone are little evidence, and another cause may explain it as well"
    numbers = _errors(evidence, evidence.before, evidence.after)
    numbers |= {"behind_before": evidence.behind_before, "behind_after": evidence.behind_after, "kind": candidate.kind}
    if candidate.value is not None:
        numbers["value"] = list(candidate.value) if isinstance(candidate.value, tuple) else candidate.value
    return Finding(candidate.fault, tuple(names[v] for v in candidate.views), sentence + ".", fix, numbers)


def _errors(evidence: FaultEvidence, before: float, after: float) -> Evidence:
    return {"before_px": evidence.before_px, "after_px": evidence.after_px, "before": before, "after": after}


def from_moved(moved: MovedCamera, evidence: FaultEvidence, names: tuple[str, ...], metric: bool) -> Finding:
    """A camera that was turned or shifted."""
    name = names[moved.candidate.views[0]]
    what = f"turning it by {moved.angle_deg:.1f} degrees"
    if moved.shift:
        length = f"{100 * moved.shift:.1f} cm" if metric else f"{moved.shift:.3g} units"
        what += f" and shifting it by {length}"
    sentence = (
        f"camera {name} disagrees with the others, as if it had been moved since the calibration: {what} cuts the "
        f"distance of its labels from the other cameras' from {100 * moved.before:.0f} to {100 * moved.after:.0f} % of "
        f"the hand's size (epipolar error {evidence.before_px:.3g} to {evidence.after_px:.2g} px)."
    )
    numbers = _errors(evidence, moved.before, moved.after) | {"angle_deg": moved.angle_deg, "shift": moved.shift}
    return Finding("moved_camera", (name,), sentence, f"{CALIBRATE}; or leave it out (`--leave-out {name}`)", numbers)


def from_lens(lens: LensFault, evidence: FaultEvidence, names: tuple[str, ...]) -> Finding:
    """A lens model that explains the outer labels better."""
    wrong, doing, fix = describe(lens.candidate, names)
    sentence = (
        f"{wrong}: towards the edge of the image the residual is {lens.growth:.1f} times that near its centre, and "
        f"{doing} cuts it from {100 * lens.before:.1f} to {100 * lens.after:.1f} % of the hand's size "
        f"(epipolar error {evidence.before_px:.3g} to {evidence.after_px:.2g} px)."
    )
    numbers = _errors(evidence, lens.before, lens.after) | {"growth": lens.growth, "kind": lens.candidate.kind}
    return Finding("wrong_lens", tuple(names[v] for v in lens.candidate.views), sentence, fix, numbers)


def from_timing(
    name: str, late: tuple[float, float], drift: float, fps: float, evidence: FaultEvidence, reference: str
) -> Finding:
    """A video out of step.

    Args:
        name: The camera.
        late: Frames by which it started later than the reference, at the middle of the capture; their standard error.
        drift: Frames per frame by which its frames run ahead; 0 if they do not.
        fps: Of the capture.
        evidence: What putting it in step does.
        reference: The cameras it is compared with, in words.
    """
    frames, error = late
    ppm, per_minute = 1e6 * drift, 60 * fps * drift
    amount = f"{abs(frames):.1f} +- {error:.1f} frames ({abs(frames) / fps:.2f} s)"
    if drift:
        where = f"in the middle of the capture it is {amount} {'behind' if frames > 0 else 'ahead of'} {reference}, "
        speed = "fast" if drift > 0 else "slow"
        where += f"and it runs {speed} by {abs(ppm):.0f} ppm ({abs(per_minute):.2g} frames a minute)"
        fix = (
            f"bring it to the others' speed, for instance with `ffmpeg -i {name}.mp4 -vf setpts=PTS/{1 + drift:.6f} "
            f"-r {fps:g} {name}_fixed.mp4`, and check again"
        )
    else:
        where = f"it started {amount} {'later' if frames > 0 else 'earlier'} than {reference}"
        fix = f'state it in capture.toml, [offset] "{name}" = {round(frames)}, as `--fix` does, and label again'
    sentence = (
        f"the video of camera {name} is out of step: {where}; putting it in step cuts the epipolar error from "
        f"{evidence.before_px:.3g} to {evidence.after_px:.2g} px."
    )
    numbers: Evidence = {
        "before_px": evidence.before_px,
        "after_px": evidence.after_px,
        "offset_frames": frames,
        "offset_error_frames": error,
        "offset_s": frames / fps,
        "drift_ppm": ppm,
        "drift_frames_per_minute": per_minute,
    }
    return Finding("out_of_step", (name,), sentence, fix, numbers)


def from_order(order: JointOrder, names: tuple[str, ...]) -> Finding:
    """All labels in another joint order."""
    sentence = (
        f"the joints look to be in another order, {order.name}: in OpenPose's order the lengths of the bones are "
        f"{100 * order.after:.0f} % off an average hand's instead of {100 * order.before:.0f} %."
    )
    numbers: Evidence = {"before": order.before, "after": order.after, "order": order.name}
    return Finding("joint_order", names, sentence, "write OpenPose's order, as `--fix` does", numbers)
