"""Any calibration as a rig. Each format has a file of its own, which says its direction, axes, units and lenses.

usthand                      our own rig.toml (`usthand.capture.rig`)
caliscope anipose freemocap  TOML (`caliscope_anipose`)
easymocap                    intri.yml and extri.yml
kalibr                       camchain YAML
basalt                       calibration.json
fisheye624, umetrack         Meta's headsets, JSON (`headset`)
nerfstudio                   transforms.json
colmap                       cameras and images, .txt or .bin
dexycb                       the data set's calibration folder
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

from usthand.capture.calibration.basalt import is_basalt, read_basalt
from usthand.capture.calibration.base import Calibration, bad_calibration
from usthand.capture.calibration.colmap import find_colmap, read_colmap
from usthand.capture.calibration.dexycb import is_dexycb, read_dexycb
from usthand.capture.calibration.documents import read_json, read_yaml
from usthand.capture.calibration.easymocap import is_easymocap, read_easymocap
from usthand.capture.calibration.headset import is_fisheye624, is_umetrack, read_fisheye624, read_umetrack
from usthand.capture.calibration.kalibr import is_kalibr, read_kalibr
from usthand.capture.calibration.nerfstudio import is_nerfstudio, read_nerfstudio
from usthand.capture.rig import Rig, build_rig, read_toml
from usthand.common.errors import UsthandError

Format = Literal[
    "auto",
    "usthand",
    "caliscope",
    "anipose",
    "freemocap",
    "easymocap",
    "kalibr",
    "basalt",
    "fisheye624",
    "umetrack",
    "nerfstudio",
    "colmap",
    "dexycb",
]
FORMATS: Final[tuple[str, ...]] = get_args(Format)
_MISSHAPEN = (TypeError, ValueError, LookupError, AttributeError, struct.error)

_READERS: dict[str, Callable[[Path], Calibration]] = {
    "easymocap": read_easymocap,
    "kalibr": read_kalibr,
    "basalt": read_basalt,
    "fisheye624": read_fisheye624,
    "umetrack": read_umetrack,
    "dexycb": read_dexycb,
}
_IMAGE_READERS: dict[str, Callable[[Path, Sequence[str]], Calibration]] = {
    "nerfstudio": read_nerfstudio,
    "colmap": read_colmap,
}


def load_calibration(
    path: str | Path,
    format: str = "auto",
    scale: float | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    images: Sequence[str] = (),
) -> Rig:
    """A calibration file or folder as a checked rig.

    Args:
        path: The file or folder.
        format: One of `FORMATS`; auto recognises it by its keys and files.
        scale: Metres per unit of the file, for those without a true scale, or to overrule the file.
            Without it `Rig.metric` is False for those.
        sizes: Width and height (px) by camera name, where the file does not say (EasyMocap).
        images: nerfstudio and COLMAP: names of the images to take as cameras.

    Raises:
        UsthandError: If it is not there, of no known format, incomplete, or a camera is impossible.

    Examples:
        >>> import usthand
        >>> rig = usthand.load_calibration("config.toml")  # Caliscope, Anipose, EasyMocap, ...: recognised by itself
        >>> rig.names, rig.metric, rig.unit_source
    """
    return build_rig(find_calibration(path, format, images), scale, sizes)


def find_calibration(path: str | Path, format: str = "auto", images: Sequence[str] = ()) -> Calibration | Rig:
    """What `load_calibration` makes its rig of, for callers that must know the cameras' names first.

    Raises:
        UsthandError: As `load_calibration`, short of what only the finished rig shows.
    """
    path = Path(path)
    if format not in FORMATS:
        raise UsthandError(
            f"there is no format {format!r}", f"the formats are {', '.join(FORMATS)}", "choose one of them"
        )
    if not path.exists():
        raise UsthandError(f"there is no {path}", "the calibration is somewhere else", "check the path")
    chosen = recognise(path) if format == "auto" else format
    if images and chosen not in _IMAGE_READERS:
        raise UsthandError(
            f"{path} is of the format {chosen}", "only nerfstudio and COLMAP list images", "leave out --images"
        )
    if chosen in _READERS or chosen in _IMAGE_READERS:
        try:
            found = _READERS[chosen](path) if chosen in _READERS else _IMAGE_READERS[chosen](path, images)
        except _MISSHAPEN as error:  # what a reader did not foresee is still the file's fault, and no traceback
            cause = "a value is missing or misshapen, or the file is cut short"
            raise bad_calibration(path, f"cannot be read ({type(error).__name__}: {error})", cause) from error
    else:
        if path.is_dir():
            raise bad_calibration(path, "is a folder", f"the format {chosen} is one TOML file", "give the file")
        found = read_toml(path, "auto" if chosen == "usthand" else chosen)
        if isinstance(found, Rig) != (chosen == "usthand"):
            raise bad_calibration(path, f"is not of the format {chosen}", "its keys are others", "leave out --format")
    if not found.names:
        raise bad_calibration(path, "holds no camera", "the calibration failed or was cut short")
    return found


def recognise(path: Path) -> str:
    """The format of a file or folder, by its keys and files.

    Raises:
        UsthandError: If it is none that we know.
    """
    found = _recognise_folder(path) if path.is_dir() else _recognise_file(path)
    if found is None:
        raise bad_calibration(
            path,
            "is of no calibration format known here",
            f"known are {', '.join(FORMATS[1:])}",
            "see docs/calibrations.md for what each looks like, or name it with --format",
        )
    return found


def _recognise_folder(path: Path) -> str | None:
    if is_easymocap(path):
        return "easymocap"
    if is_dexycb(path):
        return "dexycb"
    if (path / "transforms.json").is_file():
        return "nerfstudio"
    return "colmap" if find_colmap(path) else None


def _recognise_file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".toml":
        found = read_toml(path)
        return "usthand" if isinstance(found, Rig) else found.format.lower()
    if suffix in (".yml", ".yaml"):
        if path.name in ("intri.yml", "extri.yml"):
            return "easymocap"
        data = read_yaml(path)
        if isinstance(data, dict) and {"extrinsics", "master"} & set(data):
            return "dexycb"
        return "kalibr" if is_kalibr(data) else None
    if suffix == ".json":
        data = read_json(path)
        tests = {"nerfstudio": is_nerfstudio, "umetrack": is_umetrack, "basalt": is_basalt, "fisheye624": is_fisheye624}
        return next((name for name, fits in tests.items() if fits(data)), None)
    return "colmap" if suffix in (".txt", ".bin") and find_colmap(path.parent) else None
