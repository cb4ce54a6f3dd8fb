"""MediaPipe Hands in an environment of its own: raw frames in on stdin, one line of JSON a frame out on stdout.

A standalone script that imports nothing of usthand: MediaPipe 0.10.21 needs numpy<2, the rest of the program does not.
Protocol, little endian:

    in:  uint32 width, uint32 height, uint8 first (1 starts a new video), then width * height * 3 bytes of RGB
    out: {"ready": "<mediapipe version>"} once, then for each frame a list of hands:
         {"pass": 0 or 1, "side": "left" or "right", "score": 0.5..1, "uvz_px": 21 x [u, v, z]}

Each frame is processed twice: as it is (pass 0) and mirrored (pass 1, reported in the coordinates of the plain frame).
"""

from __future__ import annotations

import importlib
import json
import os
import struct
import sys
from typing import TYPE_CHECKING, BinaryIO, TextIO

# A script's own folder comes first on the path; there `mediapipe` would be our mediapipe.py, not the real one.
sys.path[:] = [place for place in sys.path if os.path.abspath(place) != os.path.dirname(os.path.abspath(__file__))]

import numpy as np  # noqa: E402

if TYPE_CHECKING:
    from mediapipe.python.solutions.hands import Hands  # pyright: ignore[reportMissingImports] it is in another Python

HEADER = struct.Struct("<IIB")


def take_stdout() -> TextIO:
    """The real stdout for our lines alone; what MediaPipe's C++ prints goes to stderr."""
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return own


def read_exactly(stream: BinaryIO, count: int) -> bytes | None:
    """`count` bytes, or None at the end of the stream."""
    data = stream.read(count)
    return data if len(data) == count else None


def new_trackers(hands_class: type[Hands], threshold: float, max_hands: int) -> list[Hands]:
    """Two trackers without memory: one for the frames, one for the mirrored frames."""
    return [
        hands_class(
            static_image_mode=False,
            max_num_hands=max_hands,
            model_complexity=1,
            min_detection_confidence=threshold,
            min_tracking_confidence=threshold,
        )
        for _ in range(2)
    ]


def look(tracker: Hands, rgb: np.ndarray, mirrored: bool) -> list[dict]:
    """Hands in one image. MediaPipe names sides as in a selfie: in a plain image its "Left" is a right hand."""
    height, width = rgb.shape[:2]
    seen = tracker.process(np.ascontiguousarray(rgb[:, ::-1] if mirrored else rgb))
    hands = []
    for landmarks, handedness in zip(seen.multi_hand_landmarks or [], seen.multi_handedness or [], strict=True):
        uvz = np.array([[p.x * width - 0.5, p.y * height - 0.5, p.z * width] for p in landmarks.landmark])
        named_right = handedness.classification[0].label == "Right"
        if mirrored:
            uvz[:, 0] = width - 1 - uvz[:, 0]
        hands.append(
            {
                "pass": int(mirrored),
                "side": "right" if named_right == mirrored else "left",
                "score": float(handedness.classification[0].score),
                "uvz_px": np.round(uvz, 3).tolist(),
            }
        )
    return hands


def main() -> None:
    """Answer frames until stdin ends."""
    threshold, max_hands = float(sys.argv[1]), int(sys.argv[2])
    out = take_stdout()
    mediapipe = importlib.import_module("mediapipe")
    print(json.dumps({"ready": mediapipe.__version__}), file=out, flush=True)
    trackers = []
    while (header := read_exactly(sys.stdin.buffer, HEADER.size)) is not None:
        width, height, first = HEADER.unpack(header)
        data = read_exactly(sys.stdin.buffer, width * height * 3)
        if data is None:
            break
        if first or not trackers:
            for tracker in trackers:
                tracker.close()
            trackers = new_trackers(mediapipe.solutions.hands.Hands, threshold, max_hands)
        rgb = np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)
        hands = [hand for mirrored in (False, True) for hand in look(trackers[mirrored], rgb, mirrored)]
        print(json.dumps(hands), file=out, flush=True)


if __name__ == "__main__":
    main()
