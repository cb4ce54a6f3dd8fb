"""What the videos' headers say, and how much of the hand there is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from usthand.diagnostics import corrections
from usthand.diagnostics.agreement import FLOOR
from usthand.diagnostics.candidate_faults import CandidateFault
from usthand.diagnostics.findings import Finding, who
from usthand.capture.probe import VideoHeader
from usthand.diagnostics.hand_faults import MIN_HAND_PX, MIN_SEEN, MIN_TWO_VIEWS
from usthand.diagnostics.search import begin, measure
from usthand.diagnostics.work import EVIDENCE_FRAMES, Work
from usthand.hand.skeleton import N_JOINTS


def check_headers(work: Work) -> None:
    videos = work.facts.videos
    missing = tuple(name for name, video in videos.items() if video is None)
    if missing and len(missing) < len(videos):
        sentence = (
            f"{who(missing, False)} of the rig {'has' if len(missing) == 1 else 'have'} no video that can be opened."
        )
        fix = "add it, rename the video after the camera, or remove the camera from rig.toml"
        work.findings.append(Finding("missing_video", missing, sentence, fix))
    lengths = {name: video.n_frames for name, video in videos.items() if video is not None}
    n_labels = work.labels[0].n_frames
    if not work.facts.offsets and lengths and (len(set(lengths.values())) > 1 or n_labels not in lengths.values()):
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        sentence = f"the numbers of frames differ: videos {told}; labels {n_labels}."
        fix = "cut the videos so that frame k is the same instant in all, or state offsets in capture.toml, and label again"
        work.findings.append(
            Finding("different_lengths", tuple(lengths), sentence, fix, {"labels": n_labels, **lengths})
        )
    rates = {name: video.fps for name, video in videos.items() if video is not None and video.fps}
    if rates and max(rates.values()) > 1.01 * min(rates.values()):
        told = ", ".join(f"{name} {fps:.4g}" for name, fps in rates.items())
        fix = "convert them to one rate, for instance with `ffmpeg -i in.mp4 -r 30 out.mp4`, and label again"
        work.findings.append(Finding("different_rates", tuple(rates), f"the frame rates differ: {told}.", fix, rates))
    _sizes(work)


def _sizes(work: Work) -> None:
    """Cameras whose videos have another size than the rig says. What becomes of the matrix, the labels tell."""
    wrong = {
        v: video
        for v, name in enumerate(work.names)
        if (video := work.facts.videos[name]) is not None
        and (video.width, video.height) != (work.now.cameras[v].width, work.now.cameras[v].height)
    }
    if not wrong:
        return
    before = begin(work.now.sampled(EVIDENCE_FRAMES))
    options = []
    for kind in ("resized", "turned", "kept"):
        changed = {v: _to_size(work.now.cameras[v], video, kind) for v, video in wrong.items()}
        candidate = CandidateFault("wrong_size", kind, tuple(wrong), changed, {})
        options.append((candidate, begin(candidate.apply(work.now).sampled(EVIDENCE_FRAMES))))
    # A stable choice: the likeliest of those that fit about equally well.
    least = min(state.score for _, state in options)
    candidate, after = next((h, s) for h, s in options if s.score <= max(1.05 * least, FLOOR))
    evidence = measure(before.agreement, after.agreement, before.views, after.views, tuple(wrong))
    names = tuple(work.names[v] for v in wrong)
    v, video = next(iter(wrong.items()))
    camera = work.now.cameras[v]
    what = {
        "resized": "the matrix is to be scaled",
        "turned": "width and height, and with them fx and fy, cx and cy, are exchanged",
        "kept": "the matrix fits the video, and only the stated size is wrong",
    }[candidate.kind]
    sentence = (
        f"{who(names, len(names) == len(work.names))}: the rig says {camera.width}x{camera.height} px, the video has "
        f"{video.width}x{video.height}: {what} (epipolar error {evidence.before_px:.3g} before, {evidence.after_px:.2g} px after)."
    )
    numbers = {"before_px": evidence.before_px, "after_px": evidence.after_px, "kind": candidate.kind}
    fix = "calibrate at the size of the videos, or take the rig that `--fix` writes"
    work.findings.append(Finding("wrong_size", names, sentence, fix, numbers))
    work.apply(candidate)


def _to_size(camera, video: VideoHeader, kind: str):
    if kind == "resized":
        return corrections.resized(camera, video.width, video.height)
    if kind == "turned":
        turned = corrections.turned_matrix(replace(camera, width=camera.height, height=camera.width))
        return corrections.resized(turned, video.width, video.height)
    return replace(camera, width=video.width, height=video.height)


# ---- how much there is ---------------------------------------------------------------------------------------------


def check_amount(work: Work) -> None:
    present = work.now.present.reshape(*work.now.present.shape[:2], -1, N_JOINTS).any(3)  # (T, V, hands)
    if len(work.facts.rig) < 2:
        sentence = "the rig has one camera only: nothing can be checked, and a hand cannot be placed in space."
        work.findings.append(Finding("too_few_views", work.names, sentence, "add cameras", {"views": 1}))
        return
    for hand, one in enumerate(work.labels):
        seen = present[:, :, hand].sum(1)
        two = float(np.mean(seen >= 2))
        if two < MIN_TWO_VIEWS:
            sentence = (
                f"only {100 * two:.0f} % of the frames have the {one.side} hand in two views or more "
                f"({100 * np.mean(seen >= 1):.0f} % in one), and only those can be placed in space."
            )
            fix = "cut the capture to the time when the hand is in view, or place the cameras closer around it"
            work.findings.append(
                Finding("too_few_views", work.names, sentence, fix, {"two_views": two, "side": one.side}, "warning")
            )
    _each_camera(work, present)


def _each_camera(work: Work, present: np.ndarray) -> None:
    share = present.any(2).mean(0)
    for v, name in enumerate(work.names):
        if share[v] < MIN_SEEN * max(share.max(), 1e-9):
            sentence = f"camera {name} hardly ever shows a hand: in {100 * share[v]:.1f} % of the frames, others in up to {100 * share.max():.0f} %."
            fix = "turn it to the hand, check its video, or remove it from rig.toml"
            work.findings.append(
                Finding("hand_not_seen", (name,), sentence, fix, {"share": float(share[v])}, "warning")
            )
    sample = work.now.sampled(EVIDENCE_FRAMES)
    views = begin(sample).views
    small = {work.names[v]: view.size_px for v, view in enumerate(views) if share[v] > 0 and view.size_px < MIN_HAND_PX}
    if small:
        told = ", ".join(f"{name} {size:.0f} px" for name, size in small.items())
        sentence = f"the hand is too small in the image for good labels: {told} (median of its longer side; {MIN_HAND_PX:.0f} px are the least)."
        fix = "move these cameras closer, zoom in, or record at a higher resolution"
        work.findings.append(Finding("small_hand", tuple(small), sentence, fix, small, "warning"))
