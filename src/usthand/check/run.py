"""All checks in the order in which one depends on another, and what is left when their mends are applied.

First what the headers say, then gross faults of cameras and labels (`search`), then time, moved cameras and lenses, one
mend after the other, each measured on top of the ones before. Last the hand itself, which only cameras that agree can
place in space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from usthand.check import mends
from usthand.check.camera_faults import Lens, Moved, better_lenses, most_moved, moved_cameras
from usthand.check.evidence import FLOOR, Case, error_px, spread_frames
from usthand.check.findings import Finding, from_found, from_lens, from_moved, from_order, from_timing, who
from usthand.check.folder import CaptureFacts, VideoFacts
from usthand.check.hand_faults import (
    LIKELY_PALM_M,
    MIN_HAND_PX,
    MIN_SEEN,
    MIN_SHARE_OF_OTHER_HAND,
    MIN_TWO_VIEWS,
    PALM_M,
    Hand,
    hands_in_space,
    in_order,
    joint_order,
    palm_length,
    unit_of,
    unlikeness,
    wrong_side,
)
from usthand.check.hypotheses import Hypothesis
from usthand.check.search import Found, State, begin, cut, measure, search
from usthand.check.time_faults import Timing, estimate_timing, in_step, out_of_step
from usthand.errors import UserError
from usthand.labels import Labels
from usthand.rig import Rig
from usthand.skeleton import N_JOINTS

EVIDENCE_FRAMES = 40
TRIED_WITH_MORE = 3
TIMING_CUT = 1.15
"""An offset as large as the label noise cuts the residual by 1.4; so much must be seen in the medians of the pairs."""

LONGER = 1.25
"""Factor by which more mends must explain a capture better than fewer."""

MAX_MENDS = 5
PROGRESS = 1.1
"""Factor by which one of several possible mends must lower the total residual to be taken."""

UNLIKE_A_HAND = 0.25
"""Bone lengths this far (root mean square of logs) from an average hand's: a sound one is at .03 to .08."""

UNKNOWN_UNIT = "unknown unit: lengths are not metric"


@dataclass(frozen=True)
class Report:
    """What is wrong, and the capture with all of it mended as far as that can be done."""

    findings: tuple[Finding, ...]
    error_px: float
    """Epipolar error that is left, mean over pairs of cameras."""
    error: float
    """The same in hand sizes."""
    n_frames: int
    n_views: int
    sides: tuple[str, ...]
    rig: Rig | None
    """The mended rig; None if nothing is wrong with it."""
    labels: tuple[Labels, ...] | None
    """The mended labels; None if nothing is wrong with them."""
    offsets: dict[str, int] | None
    """Frames by which each camera started late, in all; None if none is out of step."""


@dataclass
class _Work:
    """The state of the checks: mends accumulate here."""

    facts: CaptureFacts
    labels: tuple[Labels, ...]
    now: Case
    """As all mends so far leave it, in step."""
    kept: Case
    """The same without those in time: what is written."""
    findings: list[Finding]
    offset: np.ndarray
    """(V,) frames by which each video must be advanced, so far."""
    labels_changed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return self.facts.rig.names

    def apply(self, hypothesis: Hypothesis) -> None:
        self.now, self.kept = hypothesis.apply(self.now), hypothesis.apply(self.kept)
        self.labels_changed |= bool(hypothesis.labels)


def check_capture(facts: CaptureFacts, on_progress: Callable[[int, int], None] | None = None) -> Report:
    """Look for every known fault.

    Args:
        facts: From `folder.read_facts`.
        on_progress: Called with (steps done, of how many).

    Raises:
        UserError: if rig and labels do not belong together at all, or no two cameras see a hand at once.
    """
    tell = on_progress or (lambda done, total: None)
    labels = _worthwhile(facts)
    case = make_case(facts.rig, labels)
    work = _Work(facts, labels, case, case, [], np.zeros(len(facts.rig)))
    _headers(work)
    _amount(work)
    if len(facts.rig) < 2 or len(spread_frames(case.present, 1)) == 0:
        return _report(work, np.nan, np.nan, None)
    for done, step in enumerate((_gross, _one_after_the_other)):
        tell(done, 3)
        step(work)
    tell(2, 3)
    final = begin(work.now.sampled(EVIDENCE_FRAMES))
    unit = _hand(work, final)
    tell(3, 3)
    pairs = np.isfinite(final.agreement.error)
    return _report(work, error_px(final.agreement.plain, final.views, pairs), final.agreement.mean(), unit)


def make_case(rig: Rig, labels: tuple[Labels, ...]) -> Case:
    """Labels of one or both hands side by side, views in the rig's order."""
    uv, present = [], []
    for one in labels:
        columns = [one.cameras.index(name) if name in one.cameras else None for name in rig.names]
        here = np.array([c is not None for c in columns])
        index = [c or 0 for c in columns]
        uv.append(one.uv_px[:, index].astype(float))
        present.append(one.mask[:, index] & here[None, :, None])
    return Case(rig.cameras, np.concatenate(uv, axis=2), np.concatenate(present, axis=2))


def _worthwhile(facts: CaptureFacts) -> tuple[Labels, ...]:
    """The sides that are there for good; a detector's few slips to the other side are left out."""
    counts = [int(one.mask.any(2).sum()) for one in facts.labels]
    if max(counts) == 0:
        raise UserError(
            f"{facts.path} has no label in any frame",
            "the detector never saw a hand",
            f"run `usthand label {facts.path} --overwrite`",
        )
    labels = tuple(
        one for one, n in zip(facts.labels, counts, strict=True) if n > MIN_SHARE_OF_OTHER_HAND * max(counts)
    )
    strangers = sorted({name for one in labels for name in one.cameras} - set(facts.rig.names))
    if strangers:
        raise UserError(
            f"the labels have a camera '{strangers[0]}' that the rig lacks",
            f"the rig knows {', '.join(facts.rig.names)}",
            "rename the camera in rig.toml, or label again",
        )
    if len({one.n_frames for one in labels}) > 1:
        raise UserError(
            "the labels of the two hands have different numbers of frames",
            "they were made from different videos",
            f"run `usthand label {facts.path} --overwrite`",
        )
    return labels


# ---- what the headers say -------------------------------------------------------------------------------------------


def _headers(work: _Work) -> None:
    videos = work.facts.videos
    missing = tuple(name for name, video in videos.items() if video is None)
    if missing and len(missing) < len(videos):
        sentence = (
            f"{who(missing, False)} of the rig {'has' if len(missing) == 1 else 'have'} no video that can be opened."
        )
        mend = "add it, rename the video after the camera, or remove the camera from rig.toml"
        work.findings.append(Finding("missing_video", missing, sentence, mend))
    lengths = {name: video.n_frames for name, video in videos.items() if video is not None}
    n_labels = work.labels[0].n_frames
    if not work.facts.offsets and lengths and (len(set(lengths.values())) > 1 or n_labels not in lengths.values()):
        told = ", ".join(f"{name} {n}" for name, n in lengths.items())
        sentence = f"the numbers of frames differ: videos {told}; labels {n_labels}."
        mend = "cut the videos so that frame k is the same instant in all, or state offsets in capture.toml, and label again"
        work.findings.append(
            Finding("different_lengths", tuple(lengths), sentence, mend, {"labels": n_labels, **lengths})
        )
    rates = {name: video.fps for name, video in videos.items() if video is not None and video.fps}
    if rates and max(rates.values()) > 1.01 * min(rates.values()):
        told = ", ".join(f"{name} {fps:.4g}" for name, fps in rates.items())
        mend = "convert them to one rate, for instance with `ffmpeg -i in.mp4 -r 30 out.mp4`, and label again"
        work.findings.append(Finding("different_rates", tuple(rates), f"the frame rates differ: {told}.", mend, rates))
    _sizes(work)


def _sizes(work: _Work) -> None:
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
        hypothesis = Hypothesis("wrong_size", kind, tuple(wrong), changed, {})
        options.append((hypothesis, begin(hypothesis.apply(work.now).sampled(EVIDENCE_FRAMES))))
    # A stable choice: the likeliest of those that fit about equally well.
    least = min(state.score for _, state in options)
    hypothesis, after = next((h, s) for h, s in options if s.score <= max(1.05 * least, FLOOR))
    evidence = measure(before.agreement, after.agreement, before.views, after.views, tuple(wrong))
    names = tuple(work.names[v] for v in wrong)
    v, video = next(iter(wrong.items()))
    camera = work.now.cameras[v]
    what = {
        "resized": "the matrix is to be scaled",
        "turned": "width and height, and with them fx and fy, cx and cy, are exchanged",
        "kept": "the matrix fits the video, and only the stated size is wrong",
    }[hypothesis.kind]
    sentence = (
        f"{who(names, len(names) == len(work.names))}: the rig says {camera.width}x{camera.height} px, the video has "
        f"{video.width}x{video.height}: {what} (epipolar error {evidence.before_px:.3g} before, {evidence.after_px:.2g} px after)."
    )
    numbers = {"before_px": evidence.before_px, "after_px": evidence.after_px, "kind": hypothesis.kind}
    mend = "calibrate at the size of the videos, or take the rig that `--fix` writes"
    work.findings.append(Finding("wrong_size", names, sentence, mend, numbers))
    work.apply(hypothesis)


def _to_size(camera, video: VideoFacts, kind: str):
    if kind == "resized":
        return mends.resized(camera, video.width, video.height)
    if kind == "turned":
        turned = mends.turned_matrix(replace(camera, width=camera.height, height=camera.width))
        return mends.resized(turned, video.width, video.height)
    return replace(camera, width=video.width, height=video.height)


# ---- how much there is ----------------------------------------------------------------------------------------------


def _amount(work: _Work) -> None:
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
            mend = "cut the capture to the time when the hand is in view, or place the cameras closer around it"
            work.findings.append(
                Finding("too_few_views", work.names, sentence, mend, {"two_views": two, "side": one.side}, "warning")
            )
    _each_camera(work, present)


def _each_camera(work: _Work, present: np.ndarray) -> None:
    share = present.any(2).mean(0)
    for v, name in enumerate(work.names):
        if share[v] < MIN_SEEN * max(share.max(), 1e-9):
            sentence = f"camera {name} hardly ever shows a hand: in {100 * share[v]:.1f} % of the frames, others in up to {100 * share.max():.0f} %."
            mend = "turn it to the hand, check its video, or remove it from rig.toml"
            work.findings.append(
                Finding("hand_not_seen", (name,), sentence, mend, {"share": float(share[v])}, "warning")
            )
    sample = work.now.sampled(EVIDENCE_FRAMES)
    views = begin(sample).views
    small = {work.names[v]: view.size_px for v, view in enumerate(views) if share[v] > 0 and view.size_px < MIN_HAND_PX}
    if small:
        told = ", ".join(f"{name} {size:.0f} px" for name, size in small.items())
        sentence = f"the hand is too small in the image for good labels: {told} (median of its longer side; {MIN_HAND_PX:.0f} px are the least)."
        mend = "move these cameras closer, zoom in, or record at a higher resolution"
        work.findings.append(Finding("small_hand", tuple(small), sentence, mend, small, "warning"))


# ---- gross faults ---------------------------------------------------------------------------------------------------


def _gross(work: _Work) -> None:
    """One mistake; none or one together with videos out of step; several; several together with anything else."""
    states = search(work.now, 1)
    if _plausible(work, states):
        return
    if _together(work, [(), *_attempts(states, 1)], only_time=True):
        return
    states = search(work.now)
    if _plausible(work, states):
        return
    _together(work, [(), *_attempts(states, 1), *_attempts(states, 2)], only_time=False)


def _plausible(work: _Work, states: list[State]) -> bool:
    if states[0].plausible:
        _take(work, states[0].found)
    return states[0].plausible


def _attempts(states: list[State], length: int) -> list[tuple[Found, ...]]:
    """The best sequences of so many mends."""
    return [state.found for state in states if len(state.found) == length][:TRIED_WITH_MORE]


def _together(work: _Work, attempts: list[tuple[Found, ...]], only_time: bool) -> bool:
    """Take the attempt that a fault in time, a moved camera or a lens makes plausible; of several the best, but a longer one
    only if it is better by far. That other fault is left to be reported by who looks for such."""
    best = None
    for found in attempts:
        case = work.now
        for one in found:
            case = one.hypothesis.apply(case)
        # One camera moved, or the lenses, may be all there is; after another mend they would explain too much.
        options = _timing_options(case, work.facts.fps) if only_time and found else _options(case, work.facts.fps)
        ended = min(options, key=_preference, default=None)
        if ended is None or not ended.after.plausible:
            continue
        if best is None or _preference(ended) * LONGER < best[0]:
            best = (_preference(ended), found)
    if best is not None:
        _take(work, best[1])
    return best is not None


def _take(work: _Work, found: tuple[Found, ...]) -> None:
    """Apply mends and report them, each with its evidence on many frames."""
    for one in found:
        before = begin(work.now.sampled(EVIDENCE_FRAMES))
        work.apply(one.hypothesis)
        after = begin(work.now.sampled(EVIDENCE_FRAMES))
        evidence = measure(before.agreement, after.agreement, before.views, after.views, one.hypothesis.views)
        work.findings.append(from_found(Found(one.hypothesis, evidence, one.alternatives), work.names))


# ---- time, moved cameras, lenses ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mend:
    """One of several mends that are weighed against each other."""

    after: State
    cameras: tuple[int, ...]
    timing: Timing | None = None
    moved: Moved | None = None
    lens: Lens | None = None


def _options(case: Case, fps: float) -> list[_Mend]:
    options = _timing_options(case, fps)
    for moved in moved_cameras(case):
        after = begin(moved.hypothesis.apply(case).sampled(EVIDENCE_FRAMES))
        options.append(_Mend(after, moved.hypothesis.views, moved=moved))
    for lens in better_lenses(case):
        after = begin(lens.hypothesis.apply(case).sampled(EVIDENCE_FRAMES))
        options.append(_Mend(after, lens.hypothesis.views, lens=lens))
    return options


def _timing_options(case: Case, fps: float) -> list[_Mend]:
    timed = estimate_timing(case, fps)
    if timed is None:
        return []
    timing, before = timed
    late, drifts = out_of_step(timing, before, len(case.uv_px))
    wrong = late | drifts
    if not wrong.any():
        return []
    timing = replace(timing, offset=np.where(wrong, timing.offset, 0.0), drift=np.where(drifts, timing.drift, 0.0))
    after = begin(in_step(case, timing).sampled(EVIDENCE_FRAMES))
    start, views = begin(case.sampled(EVIDENCE_FRAMES)), tuple(int(v) for v in np.flatnonzero(wrong))
    if cut(measure(start.agreement, after.agreement, start.views, after.views, views)) < TIMING_CUT:
        return []
    return [_Mend(after, views, timing)]


def _preference(mend: _Mend) -> float:
    """Residual after a mend, with a handicap for those that have more freedom than others."""
    handicap = 1.0
    if mend.moved is not None:
        handicap = 1.05 if mend.moved.shift == 0 else 1.2
    if mend.lens is not None:
        handicap = 1.05 if mend.lens.hypothesis.kind == "fitted" else 1.0
        # One wrong lens is mended by the right one for all as well, where all are alike.
        handicap *= 1.1 if len(mend.cameras) > 1 else 1.0
    return max(mend.after.score, FLOOR) * handicap


def _one_after_the_other(work: _Work) -> None:
    """Take the best mend, look again. What does not lead to cameras that agree was no explanation, and is taken back."""
    as_it_was, n_findings = replace(work, offset=work.offset.copy()), len(work.findings)
    moved: set[int] = set()
    for _ in range(MAX_MENDS):
        before = begin(work.now.sampled(EVIDENCE_FRAMES))
        options = [
            o
            for o in _options(work.now, work.facts.fps)
            if o.timing is not None or o.after.score < before.score / PROGRESS
        ]
        if len(moved) == most_moved(len(work.names)):
            options = [o for o in options if o.moved is None]
        best = min(options, key=_preference, default=None)
        if best is None:
            break
        evidence = measure(before.agreement, best.after.agreement, before.views, best.after.views, best.cameras)
        if best.timing is not None:
            _take_timing(work, best, before)
        elif best.moved is not None:
            moved.update(best.cameras)
            work.apply(best.moved.hypothesis)
            work.findings.append(from_moved(best.moved, evidence, work.names, work.facts.rig.metric))
        else:
            work.apply(best.lens.hypothesis)
            work.findings.append(from_lens(best.lens, evidence, work.names))
    if not begin(work.now.sampled(EVIDENCE_FRAMES)).plausible:
        work.now, work.kept, work.offset = as_it_was.now, as_it_was.kept, as_it_was.offset
        work.labels_changed = as_it_was.labels_changed
        del work.findings[n_findings:]


def _take_timing(work: _Work, mend: _Mend, before: State) -> None:
    steady = [name for v, name in enumerate(work.names) if v not in mend.cameras]
    for v in mend.cameras:
        evidence = measure(before.agreement, mend.after.agreement, before.views, mend.after.views, (int(v),))
        reference = f"camera {steady[0]}" if len(work.names) == 2 else "the others"
        # Frame k + offset is the instant k: a camera whose frames come early in its file started late.
        work.findings.append(
            from_timing(
                work.names[v], -float(mend.timing.offset[v]), float(mend.timing.offset_error[v]), float(mend.timing.drift[v]),
                work.facts.fps, evidence, reference,
            )
        )  # fmt: skip
    work.offset = work.offset + mend.timing.offset
    work.now = in_step(work.now, mend.timing)


# ---- the hand -------------------------------------------------------------------------------------------------------


def _hand(work: _Work, final: State) -> tuple[float, str] | None:
    """Order, unit and side; returns (metres of the rig's unit, its name) if the unit is wrong, 0 metres if unknown."""
    if not final.plausible:
        sentence = (
            f"the cameras do not agree on the hand, and no known mistake explains it: the epipolar error is "
            f"{error_px(final.agreement.plain, final.views, np.isfinite(final.agreement.error)):.3g} px, "
            f"{100 * np.nanmax(final.agreement.rows()):.0f} % of the hand's size in the worst camera, where sound captures are below 5 %."
        )
        worst = tuple(
            work.names[v] for v in np.flatnonzero(final.agreement.rows() > 0.9 * np.nanmax(final.agreement.rows()))
        )
        mend = "check that calibration and videos belong together, that the cameras stood still, and calibrate again"
        work.findings.append(
            Finding("disagreement", worst, sentence, mend, {"error": float(np.nanmax(final.agreement.rows()))})
        )
        return None
    hands = hands_in_space(work.now)
    order = joint_order(hands)
    if order is not None:
        work.findings.append(from_order(order, work.names))
        everything = dict.fromkeys(range(len(work.names)), mends.order_labels(mends.ORDERS[order.name]))
        work.apply(Hypothesis("joint_order", "all", tuple(everything), {}, everything, order.name))
        hands = [in_order(hand, order.name) for hand in hands]
    unlike = np.nanmax([unlikeness(hand) for hand in hands], initial=0.0)
    if unlike > UNLIKE_A_HAND:
        sentence = (
            f"the cameras agree, but what they see is not a hand: its bone lengths are {100 * unlike:.0f} % off an average hand's, "
            "where sound captures are below 10 %."
        )
        mend = "look at the labels (joint order, mirrored images, one camera's images turned), and at the calibration"
        work.findings.append(Finding("not_a_hand", work.names, sentence, mend, {"unlikeness": float(unlike)}))
        return None
    _sides(work, hands)
    return _unit(work, hands)


def _sides(work: _Work, hands: list[Hand]) -> None:
    sides = [one.side for one in work.labels]
    for n, (hand, side) in enumerate(zip(hands, sides, strict=True)):
        found = wrong_side(hand, side)
        if found is None:
            continue
        share, count = found
        other = "left" if side == "right" else "right"
        sentence = (
            f"the {side} hand's labels look like a {other} hand: its fingers bend to the side of a {other} hand's palm in "
            f"{100 * share:.0f} % of {count} frames."
        )
        mend = f"name them {other}; if the videos are mirrored (webcams often are), unmirror them and calibrate with them so"
        work.findings.append(
            Finding("wrong_side", work.names, sentence, mend, {"share": share, "frames": count, "side": side})
        )
        sides[n] = other
    if sides != [one.side for one in work.labels] and len(set(sides)) == len(sides):
        work.labels = tuple(replace(one, side=side) for one, side in zip(work.labels, sides, strict=True))
        work.labels_changed = True


def _unit(work: _Work, hands: list[Hand]) -> tuple[float, str] | None:
    palm = palm_length(hands)
    if not work.facts.rig.metric or not np.isfinite(palm) or PALM_M[0] <= palm <= PALM_M[1]:
        return None
    unit = unit_of(palm)
    numbers = {"palm": palm}
    told = f"the palm (wrist to middle knuckle) is {palm:.3g} m long, and people's are {LIKELY_PALM_M[0]:.2f} to {LIKELY_PALM_M[1]:.2f} m"
    if unit is not None:
        name, metres = unit
        numbers |= {"factor": metres, "unit": name}
        sentence = f"the lengths of the rig look to be in {name}, not metres: {told}; in {name} it would be {100 * palm * metres:.1f} cm."
        work.findings.append(
            Finding("wrong_unit", work.names, sentence, f"multiply all translations by {metres:g}", numbers)
        )
        return metres, name
    middle = float(np.sqrt(LIKELY_PALM_M[0] * LIKELY_PALM_M[1]))
    numbers |= {"factor": middle / palm, "unit": "unknown"}
    sentence = (
        f"the lengths of the rig are not metres: {told}; one unit is about {100 * middle / palm:.3g} cm, perhaps a square of the "
        "calibration board."
    )
    mend = "multiply all translations by the length of the board's square in metres, or set metric = false"
    work.findings.append(Finding("wrong_unit", work.names, sentence, mend, numbers))
    return 0.0, UNKNOWN_UNIT


# ---- the report -----------------------------------------------------------------------------------------------------


def _report(work: _Work, px: float, error: float, unit: tuple[float, str] | None) -> Report:
    rig = replace(work.facts.rig, cameras=work.kept.cameras)
    if unit is not None and unit[0] > 0:
        rig = replace(rig, cameras=tuple(mends.scaled_translation(c, unit[0]) for c in rig.cameras))
    elif unit is not None:
        rig = replace(rig, metric=False, scale=unit[1])
    changed = unit is not None or any(a is not b for a, b in zip(rig.cameras, work.facts.rig.cameras, strict=True))
    labels = _labels(work) if work.labels_changed else None
    offsets = None
    if any(f.fault == "out_of_step" for f in work.findings):
        before = work.facts.offsets
        offsets = {name: int(before.get(name, 0) - round(o)) for name, o in zip(work.names, work.offset, strict=True)}
        offsets = {name: o for name, o in offsets.items() if o != 0}
    return Report(
        tuple(work.findings), px, error, work.labels[0].n_frames, len(work.names), tuple(one.side for one in work.facts.labels if one.mask.any()),
        rig if changed else None, labels, offsets,
    )  # fmt: skip


def _labels(work: _Work) -> tuple[Labels, ...]:
    """The labels with all mends but those in time, in the rig's order of cameras."""
    result = []
    base = make_case(work.facts.rig, work.labels)
    for n, one in enumerate(work.labels):
        part = slice(n * N_JOINTS, (n + 1) * N_JOINTS)
        columns = [one.cameras.index(name) if name in one.cameras else None for name in work.names]
        confidence = np.stack(
            [one.confidence[:, c] if c is not None else np.zeros_like(one.confidence[:, 0]) for c in columns], axis=1
        )
        confidence = np.where(base.present[:, :, part], confidence, 0)
        # Where an order was mended the confidences go with their joints; they are found by what became of their places.
        confidence = _follow(work, confidence, n)
        result.append(replace(one, uv_px=work.kept.uv_px[:, :, part], confidence=confidence, cameras=work.names))
    return tuple(result)


def _follow(work: _Work, confidence: np.ndarray, hand: int) -> np.ndarray:
    for views, order in _orders(work.findings, work.names):
        confidence[:, views] = mends.reordered(confidence[:, views], order, 2)
    return confidence


def _orders(findings: list[Finding], names: tuple[str, ...]):
    for finding in findings:
        if finding.fault == "joint_order":
            name = finding.evidence.get("order", finding.evidence.get("value"))
            yield [names.index(c) for c in finding.cameras], mends.ORDERS[name]
