"""Runs MediaPipe Hands on single images, in its own environment: `python mediapipe_static.py IMAGE... > found.json`.

Prints one JSON list per image on the last line: 21 x [u, v] px of the surest hand, or null.
"""

import json
import sys

import mediapipe as mp
import numpy as np
from PIL import Image


def main(paths: list[str]) -> None:
    found = []
    with mp.solutions.hands.Hands(
        static_image_mode=True, model_complexity=1, min_detection_confidence=0.3, max_num_hands=1
    ) as hands:
        for path in paths:
            rgb = np.array(Image.open(path).convert("RGB"))
            marks = hands.process(rgb).multi_hand_landmarks
            size = [rgb.shape[1], rgb.shape[0]]
            found.append([[p.x * size[0] - 0.5, p.y * size[1] - 0.5] for p in marks[0].landmark] if marks else None)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
