"""Elementary fixes of a camera or its labels that were written down wrongly in a known way.

Each function takes the camera as it is given and returns it, or the correction of its labels, as it should be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from usthand.capture.rig import Camera
from usthand.hand.skeleton import INTERHAND_TO_OPENPOSE, MANO_TO_OPENPOSE, N_JOINTS

Points = Float[np.ndarray, "*b P 2"]
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0])


# ---- extrinsics ----------------------------------------------------------------------------------------------------


def inverted(camera: Camera) -> Camera:
    """Camera-to-world was given where world-to-camera belongs."""
    return replace(camera, rotation=camera.rotation.T, translation=-camera.rotation.T @ camera.translation)


def from_centre(camera: Camera) -> Camera:
    """The camera's centre was given where the translation belongs (InterHand2.6M's X_cam = R (X - centre))."""
    return replace(camera, translation=-camera.rotation @ camera.translation)


def transposed(camera: Camera) -> Camera:
    """The rotation alone was given the other way round."""
    return replace(camera, rotation=camera.rotation.T)


def opencv_axes(camera: Camera) -> Camera:
    """Camera axes with y up and z backwards (OpenGL, Blender) were given."""
    flip = OPENGL_FROM_OPENCV
    return replace(camera, rotation=flip @ camera.rotation, translation=flip @ camera.translation)


def inverted_opencv(camera: Camera) -> Camera:
    """Camera-to-world with OpenGL axes was given (nerfstudio, Blender)."""
    return opencv_axes(inverted(camera))


def scaled_translation(camera: Camera, factor: float) -> Camera:
    """Another unit of length."""
    return replace(camera, translation=camera.translation * factor)


# ---- images --------------------------------------------------------------------------------------------------------


def resized(camera: Camera, width: int, height: int) -> Camera:
    """The same camera with resized images. Pixel centres stay at integers: c -> s (c + 1/2) - 1/2."""
    factor = np.array([width / camera.width, height / camera.height])
    matrix = camera.matrix.copy()
    matrix[:2] *= factor[:, None]
    matrix[:2, 2] += 0.5 * (factor - 1)
    return replace(camera, matrix=matrix, width=width, height=height)


def scaled_matrix(camera: Camera, factor: float) -> Camera:
    """The matrix of images `factor` times as large; the stated size stays."""
    matrix = camera.matrix.copy()
    matrix[:2] *= factor
    matrix[:2, 2] += 0.5 * (factor - 1)
    return replace(camera, matrix=matrix)


def turned_matrix(camera: Camera) -> Camera:
    """Exchange fx with fy and cx with cy: calibrated upright, recorded lying, or the other way round."""
    (fx, _, cx), (_, fy, cy), _ = camera.matrix
    return replace(camera, matrix=np.array([[fy, 0, cy], [0, fx, cx], [0, 0, 1.0]]))


# ---- lenses --------------------------------------------------------------------------------------------------------


def without_distortion(camera: Camera) -> Camera:
    """A lens without distortion: the images had been undistorted already."""
    return replace(camera, distortion=np.zeros(0), model="pinhole")


def as_fisheye(camera: Camera) -> Camera:
    """The same four numbers read as OpenCV's fisheye model."""
    return replace(camera, model="fisheye")


def as_pinhole(camera: Camera) -> Camera:
    """The same numbers read as OpenCV's pinhole model."""
    return replace(camera, model="pinhole")


# ---- labels --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelCorrection:
    """A change of one view's labels."""

    points: Callable[[Points], Points]
    order: tuple[int, ...] | None = None
    """Which joint comes from where; None if the joints stay, and `points` says where they are."""

    def apply(self, uv_px: Points, present: Bool[np.ndarray, "*b P"]) -> tuple[Points, Bool[np.ndarray, "*b P"]]:
        """Correct one view's labels; P is a multiple of 21."""
        if self.order is None:
            return self.points(uv_px), present
        return reordered(uv_px, self.order, -2), reordered(present, self.order, -1)


def reordered(values: np.ndarray, order: tuple[int, ...], axis: int) -> np.ndarray:
    """Each hand's 21 joints along `axis` taken in another order."""
    hands = values.shape[axis] // N_JOINTS
    index = (np.arange(hands)[:, None] * N_JOINTS + np.array(order)).reshape(-1)
    return np.take(values, index, axis)


def mirrored_labels(camera: Camera) -> LabelCorrection:
    """The images are mirrored left to right."""
    last = np.array([camera.width - 1.0, 0.0])
    return LabelCorrection(lambda uv: last + uv * [-1, 1])


def upside_down_labels(camera: Camera) -> LabelCorrection:
    """The images are turned by 180 degrees."""
    last = np.array([camera.width - 1.0, camera.height - 1.0])
    return LabelCorrection(lambda uv: last - uv)


def bottom_up_labels(camera: Camera) -> LabelCorrection:
    """The labels are counted from the lower edge of the image."""
    last = np.array([0.0, camera.height - 1.0])
    return LabelCorrection(lambda uv: last + uv * [1, -1])


def scaled_labels(factor: float) -> LabelCorrection:
    """The labels are of images of another size, 1 / `factor` times as large."""
    return LabelCorrection(lambda uv: (uv + 0.5) * factor - 0.5)


def order_labels(order: tuple[int, ...]) -> LabelCorrection:
    """The joints come in another order: joint k is the given joint `order[k]`."""
    return LabelCorrection(lambda uv: uv, order)


def _fingers(wrist: int, starts: tuple[int, ...], step: int, hop: int = 1) -> tuple[int, ...]:
    """Order of a wrist and five fingers: joint k of a finger stands at start + k * step (step < 0: tip first)."""
    order = [wrist]
    for start in starts:
        first = start if step > 0 else start + 3 * hop
        order += [first + k * step * hop for k in range(4)]
    return tuple(order)


ORDERS: dict[str, tuple[int, ...]] = {
    "MANO's order, its 16 joints followed by the five tips": MANO_TO_OPENPOSE,
    "MANO's order with the tips in MANO's order of fingers": (
        *(0, *range(13, 16), 20, *range(1, 4), 16, *range(4, 7), 17),
        *(*range(10, 13), 19, *range(7, 10), 18),
    ),
    "InterHand2.6M's order, each finger from tip to base and the wrist last": INTERHAND_TO_OPENPOSE,
    "the wrist first, then each finger from tip to base": _fingers(0, (1, 5, 9, 13, 17), -1),
    "the fingers from base to tip and the wrist last": _fingers(20, (0, 4, 8, 12, 16), 1),
    "the fingers from little finger to thumb": _fingers(0, (17, 13, 9, 5, 1), 1),
    "the fingers from little finger to thumb, each from tip to base": _fingers(0, (17, 13, 9, 5, 1), -1),
    "joint by joint: the wrist, all knuckles, all middle joints, all end joints, all tips": _fingers(
        0, (1, 2, 3, 4, 5), 1, 5
    ),
}
"""Orders that label files come in: `openpose = given[order]`."""
