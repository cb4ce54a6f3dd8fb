"""3D hands with uncertainty from calibrated multi-camera video, learned without 3D labels.

Everything that a script or a notebook needs is here, and loaded when it is first used: `import usthand` is instant.

Examples:
    >>> import usthand
    >>> capture = usthand.open_capture("clip")
    >>> labels = usthand.load_labels(capture, "right")
    >>> result = usthand.fit_labels(capture.rig, labels, usthand.FitConfig(fps=capture.fps))
    >>> result.joints_world_m.shape
    (111, 21, 3)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usthand.capture.calibration.read import load_calibration
    from usthand.capture.capture import Capture, open_capture
    from usthand.capture.create import CreateConfig, create_capture
    from usthand.capture.rig import Camera, Rig
    from usthand.common.errors import UsthandError
    from usthand.diagnostics.check import check_capture
    from usthand.evaluation.evaluate import evaluate
    from usthand.fit.fit import fit_labels, triangulate
    from usthand.fit.sequence import FitConfig
    from usthand.hand.io import load_hand
    from usthand.hand.result import Result, load_result
    from usthand.labels.detection import detect_labels
    from usthand.labels.importing import ImportConfig, import_labels
    from usthand.labels.labels import Labels, load_labels
    from usthand.output.overlay import OverlayConfig, write_overlays
    from usthand.reconstruction.reconstruct import ReconstructConfig, reconstruct
    from usthand.training.config import TrainConfig
    from usthand.training.loop import train

__version__ = "0.1.0"

__all__ = [
    "Camera",
    "Capture",
    "CreateConfig",
    "FitConfig",
    "ImportConfig",
    "Labels",
    "OverlayConfig",
    "ReconstructConfig",
    "Result",
    "Rig",
    "TrainConfig",
    "UsthandError",
    "check_capture",
    "create_capture",
    "detect_labels",
    "evaluate",
    "fit_labels",
    "import_labels",
    "load_calibration",
    "load_hand",
    "load_labels",
    "load_result",
    "open_capture",
    "reconstruct",
    "train",
    "triangulate",
    "write_overlays",
]

_HOMES = {
    "capture.calibration.read": "load_calibration",
    "capture.capture": "Capture open_capture",
    "capture.create": "CreateConfig create_capture",
    "capture.rig": "Camera Rig",
    "common.errors": "UsthandError",
    "diagnostics.check": "check_capture",
    "evaluation.evaluate": "evaluate",
    "fit.fit": "fit_labels triangulate",
    "fit.sequence": "FitConfig",
    "hand.io": "load_hand",
    "hand.result": "Result load_result",
    "labels.detection": "detect_labels",
    "labels.importing": "ImportConfig import_labels",
    "labels.labels": "Labels load_labels",
    "output.overlay": "OverlayConfig write_overlays",
    "reconstruction.reconstruct": "ReconstructConfig reconstruct",
    "training.config": "TrainConfig",
    "training.loop": "train",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Load a public name from its module (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'usthand' has no attribute {name!r}")
    value = getattr(import_module(f"usthand.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, for completion in a notebook."""
    return [*__all__, "__version__"]
