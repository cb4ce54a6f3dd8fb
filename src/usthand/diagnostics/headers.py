"""Check the videos' headers, and how often and how large the cameras see the hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from usthand.capture.probe import VideoHeader
from usthand.capture.rig import Camera
from usthand.diagnostics import corrections
from usthand.diagnostics.agreement import FLOOR
from usthand.diagnostics.candidate_faults import CandidateFault
from usthand.diagnostics.diagnosis import Diagnosis, on_evidence
from usthand.diagnostics.findings import Evidence, Finding, who
from usthand.diagnostics.hand_faults import MIN_HAND_PX, MIN_SEEN, MIN_TWO_VIEWS
from usthand.diagnostics.search import measure
from usthand.hand.skeleton import N_JOINTS


def check_headers(diagnosis: Diagnosis) -> None:
    """Missing videos, and videos whose length, frame rate or size differs from the others' or the rig's."""
    videos = {name: video for name, video in diagnosis.facts.videos.items() if video is not None}
    missing = tuple(name for name in diagnosis.facts.videos if name not in videos)
    if missing and videos:
        verb = "has" if len(missing) == 1 else "have"
        sentence = f"{who(missing, False)} of the rig {verb} no video that can be opened."
        fix = "add it, rename the video after the camera, or remove the camera from rig.toml"
        diagnosis.add(Finding("missing_video", missing, sentence, fix))
    lengths = {name: video.n_frames for name, video in videos.items()}
    n_labels = diagnosis.labels[0].n_frames
    differ = len(set(lengths.values())) > 1 or n_labels not in lengths.values()
    if not diagnosis.facts.offsets and lengths and differ:
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        sentence = f"the numbers of frames differ: videos {told}; labels {n_labels}."
        fix = (
            "cut the videos so that frame k is the same instant in all, or state offsets in capture.toml, "
            "and label again"
        )
        diagnosis.add(Finding("different_lengths", tuple(lengths), sentence, fix, {"labels": n_labels, **lengths}))
    rates = {name: video.fps for name, video in videos.items() if video.fps}
    if rates and max(rates.values()) > 1.01 * min(rates.values()):
        told = ", ".join(f"{name} {fps:.4g}" for name, fps in rates.items())
        fix = "convert them to one rate, for instance with `ffmpeg -i in.mp4 -r 30 out.mp4`, and label again"
        diagnosis.add(Finding("different_rates", tuple(rates), f"the frame rates differ: {told}.", fix, dict(rates)))
    cameras = dict(zip(diagnosis.names, diagnosis.current.cameras, strict=True))
    wrong = {
        v: videos[name]
        for v, name in enumerate(diagnosis.names)
        if name in videos and (videos[name].width, videos[name].height) != (cameras[name].width, cameras[name].height)
    }
    if wrong:
        _fix_sizes(diagnosis, wrong)


def _fix_sizes(diagnosis: Diagnosis, wrong: dict[int, VideoHeader]) -> None:
    """Cameras whose videos have another size than the rig says. The labels decide how the matrix must change."""
    case, options = diagnosis.current, []
    for kind in ("resized", "turned", "kept"):
        changed = {v: _to_size(case.cameras[v], video, kind) for v, video in wrong.items()}
        candidate = CandidateFault("wrong_size", kind, tuple(wrong), changed)
        options.append((candidate, on_evidence(candidate.apply(case))))
    # A stable choice: the likeliest of those that fit about equally well.
    least = min(state.score for _, state in options)
    candidate, after = next((c, s) for c, s in options if s.score <= max(1.05 * least, FLOOR))
    evidence = measure(diagnosis.measured(), after, tuple(wrong))
    names = tuple(diagnosis.names[v] for v in wrong)
    v, video = next(iter(wrong.items()))
    what = {
        "resized": "the matrix must be scaled",
        "turned": "width and height, and with them fx and fy, cx and cy, are exchanged",
        "kept": "the matrix fits the video, and only the stated size is wrong",
    }[candidate.kind]
    sentence = (
        f"{who(names, len(names) == len(diagnosis.names))}: the rig says "
        f"{case.cameras[v].width}x{case.cameras[v].height} px, the video has {video.width}x{video.height}: {what} "
        f"(epipolar error {evidence.before_px:.3g} before, {evidence.after_px:.2g} px after)."
    )
    numbers: Evidence = {"before_px": evidence.before_px, "after_px": evidence.after_px, "kind": candidate.kind}
    fix = "calibrate at the size of the videos, or take the rig that `--fix` writes"
    diagnosis.add(Finding("wrong_size", names, sentence, fix, numbers))
    diagnosis.apply(candidate)


def _to_size(camera: Camera, video: VideoHeader, kind: str) -> Camera:
    if kind == "resized":
        return corrections.resized(camera, video.width, video.height)
    if kind == "turned":
        turned = corrections.turned_matrix(replace(camera, width=camera.height, height=camera.width))
        return corrections.resized(turned, video.width, video.height)
    return replace(camera, width=video.width, height=video.height)


# ---- how much there is ---------------------------------------------------------------------------------------------


def check_amount(diagnosis: Diagnosis) -> None:
    """Whether enough cameras see the hand, often enough and large enough."""
    points = diagnosis.current.present
    present = np.asarray(points.reshape(*points.shape[:2], -1, N_JOINTS).any(3))  # (T, V, hands)
    if len(diagnosis.facts.rig) < 2:
        sentence = "the rig has one camera only: nothing can be checked, and a hand cannot be placed in space."
        diagnosis.add(Finding("too_few_views", diagnosis.names, sentence, "add cameras", {"views": 1}))
        return
    for hand, one in enumerate(diagnosis.labels):
        seen = present[:, :, hand].sum(1)
        two = float(np.mean(seen >= 2))
        if two < MIN_TWO_VIEWS:
            sentence = (
                f"only {100 * two:.0f} % of the frames have the {one.side} hand in two views or more "
                f"({100 * np.mean(seen >= 1):.0f} % in one), and only those can be placed in space."
            )
            fix = "cut the capture to the time when the hand is in view, or place the cameras closer around it"
            numbers: Evidence = {"two_views": two, "side": one.side}
            diagnosis.add(Finding("too_few_views", diagnosis.names, sentence, fix, numbers, "warning"))
    _check_each_camera(diagnosis, present.any(2).mean(0))


def _check_each_camera(diagnosis: Diagnosis, share: Float[np.ndarray, "V"]) -> None:
    """`share`: of the frames in which each camera shows a hand."""
    for v, name in enumerate(diagnosis.names):
        if share[v] < MIN_SEEN * max(share.max(), 1e-9):
            sentence = (
                f"camera {name} hardly ever shows a hand: in {100 * share[v]:.1f} % of the frames, "
                f"others in up to {100 * share.max():.0f} %."
            )
            fix = "turn it to the hand, check its video, or remove it from rig.toml"
            diagnosis.add(Finding("hand_not_seen", (name,), sentence, fix, {"share": float(share[v])}, "warning"))
    sizes = {diagnosis.names[v]: view.size_px for v, view in enumerate(diagnosis.measured().views) if share[v] > 0}
    small = {name: size for name, size in sizes.items() if size < MIN_HAND_PX}
    if small:
        told = ", ".join(f"{name} {size:.0f} px" for name, size in small.items())
        sentence = (
            f"the hand is too small in the image for good labels: {told} (median of its longer side; "
            f"at least {MIN_HAND_PX:.0f} px are needed)."
        )
        fix = "move these cameras closer, zoom in, or record at a higher resolution"
        diagnosis.add(Finding("small_hand", tuple(small), sentence, fix, dict(small), "warning"))
