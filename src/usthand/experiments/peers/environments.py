"""The peers' virtual environments: what is installed in each, where they are, and how they are made.

Their requirements exclude each other's and ours, so each has a Python of its own, as MediaPipe has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from usthand.common.errors import UsthandError
from usthand.common.progress import Progress, silent

FOLDER_VARIABLE = "USTHAND_PEERS"
FOLDER = ".venv-peers"
INSTALL = "run `usthand bench peers --install`"
OWN = "each peer has an environment of its own"


@dataclass(frozen=True)
class Environment:
    """One peer's environment."""

    name: str
    package: str
    version: str
    beside: tuple[str, ...] = ()
    """Releases that are installed with it: what it was run with, or where its newest one does not run."""
    python: str | None = None
    """The one version of Python that it runs in, such as "3.12"; None for ours."""
    alone: bool = False
    """Installed without what it asks for, all of which that is needed is in `beside`."""

    @property
    def release(self) -> str:
        """Package and version, for tables."""
        return f"{self.package} {self.version}"

    def commands(self, pip: Path) -> list[list[str]]:
        """What fills the environment, in order."""
        install, own = (
            [str(pip), "install", "--quiet", "--disable-pip-version-check"],
            f"{self.package}=={self.version}",
        )
        return (
            [[*install, *self.beside], [*install, "--no-deps", own]] if self.alone else [[*install, own, *self.beside]]
        )


ENVIRONMENTS = {
    one.name: one
    for one in (
        # It imports all of MediaPipe's old interface, which newer releases lack; that one wants numpy<2. Its films and
        # its graphical interface are left out.
        Environment(
            "athena",
            "athena-tracking",
            "0.9",
            ("mediapipe==0.10.21", "av==19.0.2", "toml==0.10.2", "matplotlib", "scipy", "tqdm"),
            python="3.12",
            alone=True,
        ),
        Environment("anipose", "aniposelib", "0.8.0", ("jax==0.10.2",)),
        Environment("pose2sim", "pose2sim", "0.10.49"),
        Environment("eks", "ensemble-kalman-smoother", "4.6.2", ("jax==0.4.36", "jaxlib==0.4.36")),
    )
}


def find_python(environment: Environment) -> Path:
    """The Python of a peer's environment.

    In this order: the folder that the environment variable `USTHAND_PEERS` names, `.venv-peers` in the current folder,
    `.venv-peers` beside this environment.

    Raises:
        UsthandError: If it is not there.
    """
    for folder in _folders():
        python = folder / environment.name / "bin" / "python"
        if python.is_file():
            return python
    raise UsthandError(f"{environment.package} is not installed", OWN, INSTALL)


def missing_environments() -> list[str]:
    """Names of those that are not installed."""

    def there(environment: Environment) -> bool:
        return any((folder / environment.name / "bin" / "python").is_file() for folder in _folders())

    return [name for name, environment in ENVIRONMENTS.items() if not there(environment)]


def absence(names: list[str]) -> str:
    """A sentence about environments that are missing."""
    packages = [ENVIRONMENTS[name].package for name in names]
    return f"{' and '.join(packages)} {'is' if len(names) == 1 else 'are'} not installed: {OWN}; {INSTALL}."


def install(progress: Progress = silent) -> None:
    """Make the environments that are not there, in the first place where they are looked for.

    Raises:
        UsthandError: If the Python that a peer wants is not there, or its installation fails.
    """
    missing = missing_environments()
    for number, name in enumerate(missing):
        progress(number, len(missing), "environments", ENVIRONMENTS[name].release)
        _make(ENVIRONMENTS[name], _folders()[0] / name)


def _folders() -> list[Path]:
    named = os.environ.get(FOLDER_VARIABLE)
    return [Path(named)] if named else [Path.cwd() / FOLDER, Path(sys.prefix).parent / FOLDER]


def _make(environment: Environment, place: Path) -> None:
    """It takes its name when it is whole; scripts of an environment name its folder, so it cannot be moved there."""
    try:
        _run([_base_python(environment), "-m", "venv", str(place)], environment)
        for command in environment.commands(place / "bin" / "pip"):
            _run(command, environment)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _base_python(environment: Environment) -> str:
    if environment.python is None or environment.python == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    name = f"python{environment.python}"
    found = shutil.which(name)
    if not found or subprocess.run([found, "--version"], capture_output=True, check=False).returncode:
        raise UsthandError(
            f"there is no {name}", f"{environment.release} runs in no other", f"install it so that `{name}` starts it"
        )
    return found


def _run(command: list[str], environment: Environment) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own_environment())
    if done.returncode:
        raise UsthandError(
            f"{environment.release} cannot be installed", last_line(done.stderr), f"try `{' '.join(command)}`"
        )


def own_environment() -> dict[str, str]:
    """Variables for another Python: ours without the places of our packages."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def last_line(text: str) -> str:
    """What a program said last, as part of a sentence."""
    lines = text.strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "it says nothing"
