"""The peers by name, and one of them run on one capture's labels."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from usthand.capture.rig import Rig
from usthand.common.errors import UsthandError
from usthand.experiments.peers import anipose, athena, eks, pose2sim
from usthand.experiments.peers.environments import (
    ENVIRONMENTS,
    INSTALL,
    Environment,
    find_python,
    last_line,
    own_environment,
)
from usthand.experiments.peers.exchange import Given, Placed, as_result, given
from usthand.hand.result import Result
from usthand.labels.labels import Labels

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Peer:
    """One line of the table: a program, and how it is set."""

    environment: Environment
    what: str
    """Of the program, for tables."""
    write: Callable[[Given, Path], None]
    """Cameras and labels into an empty folder."""
    read: Callable[[Given, Path], Placed]
    """Joints from the same folder, after the run."""
    settings: Callable[[float], Mapping[str, object]]
    """What is set otherwise than the program comes, at so many frames per second."""
    lens: bool
    """Whether it knows OpenCV's lens; if not, it is given ideal cameras."""

    @property
    def label(self) -> str:
        """For tables, with the version."""
        return f"{self.environment.release}, {self.what}"


class Run(NamedTuple):
    """What came back."""

    result: Result
    seconds: float
    """Of the peer's own work, without start and imports."""


PEERS = {
    "athena": Peer(ENVIRONMENTS["athena"], "as it comes", athena.write, athena.read, athena.settings, lens=False),
    "anipose-ransac": Peer(ENVIRONMENTS["anipose"], "RANSAC", anipose.write, anipose.read, anipose.ransac, lens=True),
    "anipose": Peer(
        ENVIRONMENTS["anipose"], "optimised, as it comes", anipose.write, anipose.read, anipose.optimised, lens=True
    ),
    "anipose-program": Peer(
        ENVIRONMENTS["anipose"],
        "optimised, as the program Anipose sets it",
        anipose.write,
        anipose.read,
        anipose.optimised_as_the_program,
        lens=True,
    ),
    "pose2sim": Peer(
        ENVIRONMENTS["pose2sim"], "as it comes", pose2sim.write, pose2sim.read, pose2sim.settings, lens=False
    ),
    "pose2sim-hands": Peer(
        ENVIRONMENTS["pose2sim"],
        "cameras dropped at 6 px",
        pose2sim.write,
        pose2sim.read,
        pose2sim.settings_for_hands,
        lens=False,
    ),
    "eks": Peer(ENVIRONMENTS["eks"], "as it comes", eks.write, eks.read, eks.settings, lens=True),
    "eks-inflated": Peer(
        ENVIRONMENTS["eks"], "variances inflated", eks.write, eks.read, eks.settings_inflated, lens=True
    ),
}


def run_peer(name: str, rig: Rig, labels: Labels, fps: float) -> Run:
    """Run a peer on one hand's labels.

    Args:
        name: One of `PEERS`.
        rig: The calibrated cameras, in metres.
        labels: Of some or all of them.
        fps: Frames per second.

    Raises:
        UsthandError: If its environment is missing, it fails, or it cannot take this rig.
    """
    peer = PEERS[name]
    python = find_python(peer.environment)
    data = given(rig, labels, fps, lens=peer.lens)
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as place:
        folder = Path(place)
        peer.write(data, folder)
        (folder / "settings.json").write_text(json.dumps(peer.settings(fps)))
        command = [str(python), str(WORKER), peer.environment.name, str(folder)]
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env=own_environment(),
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise UsthandError(
                f"{peer.environment.release} ended before its work was done",
                last_line(done.stderr),
                f"remove its environment and {INSTALL}, if it is damaged",
            )
        found, seconds = peer.read(data, folder), json.loads((folder / "run.json").read_text())["seconds"]
    used = [name for name in rig.names if name in labels.cameras]
    kept = replace(rig, cameras=tuple(rig.cameras[rig.index(name)] for name in used))
    return Run(as_result(found, kept, labels.side, name), seconds)
