"""The front door: what `import usthand` gives, how fast, and that its examples and the README's run."""

from __future__ import annotations

import ast
import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import usthand

ROOT = Path(__file__).resolve().parents[1]
PROMISED = """
    Camera Capture CreateConfig FitConfig ImportConfig Labels OverlayConfig ReconstructConfig Result Rig TrainConfig
    UsthandError
    check_capture create_capture detect_labels evaluate fit_labels import_labels load_calibration load_hand load_labels
    load_result open_capture reconstruct train triangulate write_overlays
""".split()
FUNCTIONS = [name for name in PROMISED if name[0].islower()]
MOST_ARGUMENTS = 7
IMPORT_S = 0.05


def test_the_public_names_are_those_that_were_promised():
    """A name that comes or goes is a decision: this list, `docs/python-api.md` and the changelog change with it."""
    assert usthand.__all__ == sorted(PROMISED)
    assert set(dir(usthand)) >= set(PROMISED)
    with pytest.raises(AttributeError, match="no attribute 'reconstruct_all'"):
        usthand.reconstruct_all  # noqa: B018


def test_type_checkers_see_the_names_that_are_loaded():
    """The imports for type checkers and the lazy table name the same homes."""
    tree = ast.parse(Path(usthand.__file__).read_text())
    stated = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("usthand.")
        for alias in node.names
    }
    assert stated == {name: f"usthand.{home}" for name, home in usthand._HOME_OF.items()}
    assert sorted(stated) == usthand.__all__


@pytest.mark.parametrize("name", PROMISED)
def test_every_public_name_is_documented(name):
    assert inspect.getdoc(getattr(usthand, name)), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_door_is_narrow(name):
    assert len(inspect.signature(getattr(usthand, name)).parameters) <= MOST_ARGUMENTS


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with what the examples of the docstrings expect: footage, a calibration, labels and a result."""
    from usthand.datasets.synthetic.write import SynthConfig, make_capture
    from usthand.labels.formats.openpose import write_openpose_json

    folder = tmp_path_factory.mktemp("desk")
    capture = usthand.open_capture(
        make_capture(folder / "clip", SynthConfig(views=2, frames=6, size=96, labels="exact"))
    )
    labels = usthand.load_labels(capture, "right")
    usthand.fit_labels(capture.rig, labels).save(folder / "fit.npz")
    write_openpose_json(labels, folder / "openpose")
    (folder / "raw").mkdir()
    for video in (folder / "clip").glob("*.mp4"):
        shutil.copy(video, folder / "raw")
    shutil.copy(folder / "clip" / "rig.toml", folder / "config.toml")
    return folder


@pytest.mark.parametrize("name", PROMISED)
def test_the_examples_of_the_docstrings_run(name, desk, monkeypatch):
    """Those that need a detector or take minutes are marked to be skipped; their lines are parsed all the same."""
    monkeypatch.chdir(desk)
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(getattr(usthand, name)))
    assert examples, name
    names: dict[str, object] = {}
    for example in examples:
        code = compile(example.source, f"<example of {name}>", "exec")
        if not example.options.get(doctest.SKIP):
            exec(code, names)


def test_the_import_is_light_and_loads_no_torch():
    """The least processor time of five fresh processes, each measuring the import alone."""
    code = """
import sys, time
began = time.process_time()
import usthand
print(time.process_time() - began, "torch" in sys.modules)
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    seconds, torch = zip(*(run.stdout.split() for run in runs), strict=True)
    assert set(torch) == {"False"}
    assert min(map(float, seconds)) < IMPORT_S


def test_the_core_runs_without_rich(tmp_path):
    """Import every package but the command line, and fit, train and reconstruct, where rich cannot be imported."""
    code = """
import pkgutil, sys
sys.modules["rich"] = None
import usthand
skip = ("usthand.cli", "usthand.labels.detectors.mediapipe_worker")
for module in pkgutil.walk_packages(usthand.__path__, "usthand."):
    if not module.name.startswith(skip):
        __import__(module.name)
from usthand.datasets.synthetic.write import SynthConfig, make_capture
capture = usthand.open_capture(make_capture("clip", SynthConfig(views=2, frames=6, size=96, labels="exact")))
result = usthand.fit_labels(capture.rig, usthand.load_labels(capture, "right"))
print(len(result), usthand.evaluate(result, capture)["valid_fraction"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "6 1.0\n" and done.stderr == ""


def python_blocks(page: Path) -> list[str]:
    """The Python snippets of a page, in order."""
    return [block.split("```")[0] for block in page.read_text().split("```python\n")[1:]]


def test_the_readmes_python_runs(tmp_path):
    """In a folder with the clip that the README's commands make: a synthetic one stands in for it."""
    from usthand.datasets.synthetic.write import SynthConfig, make_capture

    make_capture(tmp_path / "clip", SynthConfig(views=3, frames=8, size=96, labels="exact"))
    (snippet,) = python_blocks(ROOT / "README.md")
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_the_examples_run(example, example_folder):
    """In the order of their numbers, in one folder: each may use what an earlier one made."""
    done = subprocess.run(
        [sys.executable, str(example)], capture_output=True, text=True, cwd=example_folder, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("examples")
