"""Calls one peer, in the peer's own Python: `python worker.py PEER FOLDER`.

A standalone script that imports nothing of usthand. It reads `settings.json` and the peer's own files in FOLDER, calls
the peer as its documentation does, and writes `run.json`: {"seconds": of the call, imports left out}. What the peers
write themselves stays as they write it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A script's own folder comes first on the path; there `athena` would be our athena.py, not the real one.
sys.path[:] = [place for place in sys.path if os.path.abspath(place) != os.path.dirname(os.path.abspath(__file__))]

Call = Callable[[], object]


def athena(folder: Path, settings: dict[str, Any]) -> Call:
    """Triangulation and refinement of landmarks that are there."""
    from athena.triangulaterefine import main  # pyright: ignore[reportMissingImports] it is in another Python

    options = {"main_folder": str(folder), "idfolders": [str(next((folder / "videos").iterdir()))], **settings}
    return lambda: main(json.dumps(options))


def anipose(folder: Path, settings: dict[str, Any]) -> Call:
    """RANSAC triangulation, or the optimisation."""
    import numpy as np
    from aniposelib.cameras import CameraGroup  # pyright: ignore[reportMissingImports]

    points = np.load(folder / "points.npy")
    group = CameraGroup.load(str(folder / "calibration.toml"))
    group = group.subset_cameras_names([f"view{number:02d}" for number in range(len(points))])

    def call() -> None:
        if settings.get("cameras_of") == "ransac":
            flat = points.reshape(len(points), -1, 2)
            joints, seen = np.full((flat.shape[1], 3), np.nan), np.isfinite(flat[..., 0]).any(0)
            joints[seen] = group.triangulate_ransac(flat[:, seen])[0]  # it breaks off at a point that no camera sees
            joints = joints.reshape(*points.shape[1:3], 3)
        else:
            joints = group.triangulate_optim(points, **settings["options"])
        np.save(folder / "joints.npy", joints)

    return call


def pose2sim(folder: Path, settings: dict[str, Any]) -> Call:
    """Triangulation and filtering."""
    from Pose2Sim import Pose2Sim, filtering, triangulation  # noqa: F401  # pyright: ignore[reportMissingImports]

    config = settings | {"project": settings["project"] | {"project_dir": str(folder)}}

    def call() -> None:
        Pose2Sim.triangulation(config)
        Pose2Sim.filtering(config)

    return call


def eks(folder: Path, settings: dict[str, Any]) -> Call:
    """The multi-camera smoother on calibrated cameras."""
    from eks.multicam_smoother import fit_eks_multicam  # pyright: ignore[reportMissingImports]

    paths = {"save_dir": str(folder / "outputs"), "calibration": str(folder / "calibration.toml")}
    return lambda: fit_eks_multicam(input_source=str(folder / "inputs"), **paths, **settings)


def main(peer: str, folder: Path) -> None:
    """Call it and note the time."""
    calls = {"athena": athena, "anipose": anipose, "pose2sim": pose2sim, "eks": eks}
    call = calls[peer](folder, json.loads((folder / "settings.json").read_text()))
    began = time.monotonic()
    call()
    (folder / "run.json").write_text(json.dumps({"seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())
