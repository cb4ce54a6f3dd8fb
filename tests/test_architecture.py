"""The house rules that a machine can check: data flows one way, truth stays out, forbidden libraries too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "usthand"

ORDER = (
    "errors device folders skeleton rotations lenses geometry calibration.found calibration.tables rig calibration offset resample pictures video capture truth init labels unpickle "
    "hand.model hand.limits hand.unpickle hand.files hand "
    "label_formats detectors.base detectors tracks hypotheses associate detectors.run label_import "
    "synthetic result mesh_joints adapters.base adapters.mano "
    "robust check.mends check.evidence check.hypotheses check.search check.ray_tracks check.timing check.time_faults check.camera_faults check.hand_faults check.folder check.findings check.work check.headers check.hand check.run check.write check banded articulation covariance energy deviation initial units trust fitter lay cross_check fit "
    "network.backbone network.views network.flow network.lift network.points network.hand_head network.model network "
    "shards windows losses checkpoint prepare presets learner training_log train estimate answers reconstruct baselines metrics evaluate uncertainty draw overlay pretrain bench.regimes bench.knock_out bench.methods bench.cells bench.tables bench figures measures report demo adapters.published adapters.hanco adapters.dexycb adapters.percamera adapters.oakink adapters.ho3d adapters.interhand adapters adapters.hanco_write adapters.run cli"
).split()
"""A file imports only from those before it; a folder's name stands for its files that have no name of their own."""

FORBIDDEN = {"torchvision", "timm", "smplx", "manotorch", "chumpy", "pytorch3d", "pyrender", "open3d", "cv2", "roma", "zuko"}
FILES = sorted(SOURCE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


def place(module: str) -> int:
    """Position in the order; files of one folder that is named as a whole share a place."""
    while module and module not in ORDER:
        module = module.rpartition(".")[0]
    return ORDER.index(module) if module else -1


def imports(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(module, names) of every import in a file, wherever it stands, type-checking blocks included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(["usthand", *path.relative_to(SOURCE).parts[: -node.level], *base.split(".")]).rstrip(".")
            found.append((base, tuple(alias.name for alias in node.names)))
    return found


def own_imports(path: Path) -> list[str]:
    """Modules of the project that a file imports, without the package's prefix."""
    modules = []
    for module, names in imports(path):
        if module == "usthand":
            modules += list(names)
        elif module.startswith("usthand."):
            rest = module.removeprefix("usthand.")
            inner = [f"{rest}.{name}" for name in names if (SOURCE / rest.replace(".", "/") / f"{name}.py").is_file()]
            modules += inner or [rest]
    return [m for m in modules if m != "__version__"]


def test_every_file_has_a_place():
    unknown = [module_name(p) for p in FILES if module_name(p) and place(module_name(p)) < 0]
    assert not unknown, f"add to ORDER: {unknown}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_follow_the_data(path):
    own = module_name(path)
    backwards = [m for m in own_imports(path) if m != own and place(m) > place(own)]
    assert not backwards, f"{own} imports {backwards}, which come later"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_forbidden_library(path):
    allowed = {"cv2"} if path.name == "mediapipe_worker.py" else set()
    used = {module.partition(".")[0] for module, _ in imports(path)}
    assert not (used & FORBIDDEN) - allowed


TRUTH_FREE = [
    "labels", "fit", "fitter", "lay", "deviation", "cross_check", "units", "prepare", "windows", "losses", "checkpoint", "presets", "learner", "train",
    "estimate", "answers", "reconstruct", "baselines",
]  # fmt: skip


def test_truth_cannot_be_named_where_networks_learn():
    """Neither the type nor its reader is imported, by name or by module attribute, in anything that learns or fits."""
    files = [p for p in FILES if module_name(p).split(".")[0] in (*TRUTH_FREE, "network")]
    assert len(files) > 12
    for path in files:
        words = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        words |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        words |= {name for _, names in imports(path) for name in names}
        assert not {w for w in words if "truth" in w.lower()}, path


def test_nothing_that_learns_imports_truth():
    """Ours, the rival's, and what follows a training: in a fresh process, without metrics, tables and synthetic captures."""
    learning = "usthand.train, usthand.learner, usthand.reconstruct, usthand.fit, usthand.baselines.hamuco, usthand.baselines.hamuco_result"
    code = f"import sys, {learning}; print([m for m in ('usthand.truth', 'usthand.metrics', 'usthand.synthetic') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_importing_the_core_needs_no_detector_and_no_test_library():
    """The command line imports nothing heavy before a command is chosen."""
    code = "import sys, usthand.cli; print([m for m in ('torch', 'mediapipe', 'cv2', 'numba') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
