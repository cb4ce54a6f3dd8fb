"""House rules that import contracts (`make lint`) cannot state: names, sizes, and what a fresh process loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "usthand"
FILES = sorted(SOURCE.rglob("*.py"))
LEARNING = ("fit", "data", "network", "training", "reconstruction")


def printed_by(code: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("package", LEARNING)
def test_truth_cannot_be_named_where_networks_learn(package):
    """Neither the type nor its reader is named: the contract forbids the import, this forbids passing it in by name."""
    files = sorted((SOURCE / package).rglob("*.py"))
    assert files
    for path in files:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        words = {node.id for node in nodes if isinstance(node, ast.Name)}
        words |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        words |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        assert not {w for w in words if "truth" in w.lower()}, path


def test_nothing_that_learns_loads_truth():
    """Ours, the rival's, and what follows a training: in a fresh process, without metrics and synthetic captures."""
    learning = (
        "training.loop reconstruction.reconstruct fit.fit experiments.hamuco.model experiments.hamuco.reconstruct"
    )
    imports = ", ".join(f"usthand.{name}" for name in learning.split())
    loaded = "[m for m in sys.modules if m.startswith(('usthand.evaluation', 'usthand.datasets'))]"
    told = printed_by(f"import sys, {imports}; print({loaded})")
    assert told == "[]"


def test_nothing_that_learns_or_labels_loads_marks():
    """Every module of these packages in a fresh process; labels that follow marks would be as wrong as a training."""
    code = """
import importlib, pkgutil, sys
for package in ("labels", "fit", "data", "network", "training", "reconstruction", "datasets"):
    root = importlib.import_module(f"usthand.{package}")
    for module in pkgutil.walk_packages(root.__path__, f"usthand.{package}."):
        if not module.name.endswith("mediapipe_worker"):
            importlib.import_module(module.name)
print([m for m in sys.modules if m.startswith("usthand.evaluation.mark")])
"""
    assert printed_by(code) == "[]"


def test_the_command_line_loads_nothing_heavy():
    """The command line imports nothing heavy before a command is chosen."""
    code = "import sys, usthand.cli; print([m for m in ('torch', 'mediapipe', 'cv2', 'numba') if m in sys.modules])"
    assert printed_by(code) == "[]"


def test_no_public_class_name_stands_twice():
    names = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert not {name for name, count in names.items() if count > 1}


def test_the_house_is_easy_to_see():
    """At most 18 entries at the top of the package, and no file of more than 450 lines."""
    entries = {path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*") if "__pycache__" not in path.parts}
    assert len(entries) <= 18, sorted(entries)
    long = {str(path): n for path in FILES if (n := path.read_text().count("\n")) > 450}
    assert not long


def test_no_test_file_imports_another():
    """What several share is in `tests/support` or a conftest."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        modules = [getattr(node, "module", None) or "" for node in nodes] + [a.name for n in nodes for a in n.names]
        assert not [name for name in modules if name.split(".")[-1].startswith("test_")], path
