"""Hands on disk: the embedded one, and files in MANO's layout: loading, installing, exporting."""

from __future__ import annotations

import functools
import os
import pickle
import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse

from usthand.common.errors import UsthandError
from usthand.common.files import refuse_existing, whole_file
from usthand.hand.model import N_FACES, N_MANO_JOINTS, N_SHAPES, N_VERTICES, TIP_IDS, HandModel
from usthand.hand.skeleton import MANO_PARENTS, SIDES
from usthand.hand.unpickle import read_pickle

LAYOUT: dict[str, tuple[int, ...]] = {
    "v_template": (N_VERTICES, 3),
    "shapedirs": (N_VERTICES, 3, N_SHAPES),
    "posedirs": (N_VERTICES, 3, 135),
    "J_regressor": (N_MANO_JOINTS, N_VERTICES),
    "weights": (N_VERTICES, N_MANO_JOINTS),
    "f": (N_FACES, 3),
    "kintree_table": (2, N_MANO_JOINTS),
    "hands_components": (45, 45),
    "hands_mean": (45,),
}
"""The keys of a hand's file that are used, and their shapes."""
FIELDS = ("nail", "palmar", "finger")
"""Per-vertex keys of the embedded file beyond MANO's layout."""
ENVIRONMENT = "USTHAND_HAND"
EMBEDDED, INSTALLED = "embedded", "mano"


def load_hand(path: str | Path | None = None, side: str = "right", dtype: torch.dtype = torch.float32) -> HandModel:
    """A hand model of either side; metres.

    Args:
        path: None or "embedded" for the hand of this package; "mano" for the one that `usthand hand install` installed;
            else a file in MANO's layout, .pkl or .npz, of the **right** hand. A left hand is always the mirror image of
            the right one, which also avoids the wrong sign of `shapedirs[:, 0]` in MANO's own left file.
        side: "right" or "left".
        dtype: Of the model's real numbers.

    Raises:
        UsthandError: If the file is missing, unreadable, of another layout or of a left hand, or `side` is neither.

    Examples:
        >>> import torch, usthand
        >>> hand = usthand.load_hand(side="right")
        >>> shaped = hand.with_shape(torch.zeros(10))
        >>> shaped.with_pose(hand.rotations(torch.zeros(48), flat_hand_mean=True)).vertices.shape  # (778, 3), metres
    """
    if side not in SIDES:
        raise UsthandError(
            f"there is no side {side!r}", "a hand is either left or right", "say `--side right` or `--side left`"
        )
    if path is None or str(path) == EMBEDDED:
        arrays, name = embedded_arrays(), EMBEDDED
    else:
        source = _installed() if str(path) == INSTALLED else Path(path)
        arrays, name = read_hand(source), source.stem
    hand = hand_from_arrays(arrays, dtype, name)
    return hand.mirrored() if side == "left" else hand


def right_hand(hand: HandModel | None = None) -> HandModel:
    """A hand as the fit needs it, right and in float64; the embedded one if none is given."""
    hand = load_hand(dtype=torch.float64) if hand is None else hand.to(torch.float64)
    return hand if hand.side == "right" else hand.mirrored()


@functools.lru_cache(maxsize=1)
def embedded_arrays() -> dict[str, np.ndarray]:
    """The arrays of the embedded right hand; shared, so not to be written to."""
    with resources.files("usthand.hand").joinpath("data/embedded.npz").open("rb") as file, np.load(file) as data:
        return {key: data[key] for key in data.files}


def hand_from_arrays(
    arrays: Mapping[str, ArrayLike], dtype: torch.dtype = torch.float32, name: str = EMBEDDED
) -> HandModel:
    """A right hand from arrays in MANO's layout; joints are regressed in float64."""

    def real(value: ArrayLike) -> torch.Tensor:
        return torch.tensor(np.asarray(value, np.float64)).to(dtype)

    template, shapedirs = np.asarray(arrays["v_template"], np.float64), np.asarray(arrays["shapedirs"], np.float64)
    regressor = np.asarray(arrays["J_regressor"], np.float64)
    return HandModel(
        v_template=real(template),
        shapedirs=real(shapedirs),
        posedirs=real(arrays["posedirs"]),
        joints_template=real(regressor @ template),
        joints_shapedirs=real(np.einsum("jn,nck->jck", regressor, shapedirs)),
        weights=real(arrays["weights"]),
        hands_mean=real(arrays["hands_mean"]),
        hands_components=real(arrays["hands_components"]),
        faces=torch.tensor(np.asarray(arrays["f"], np.int64)),
        tip_ids=torch.tensor(TIP_IDS),
        name=name,
        fields={key: real(arrays[key]) for key in FIELDS if key in arrays},
    )


# ---- reading and checking ------------------------------------------------------------------------------------------


def read_hand(path: str | Path) -> dict[str, np.ndarray]:
    """The checked arrays of a right hand's file, .npz or MANO's pickle.

    Raises:
        UsthandError: As `load_hand`.
    """
    path = Path(path)
    if not path.is_file():
        raise UsthandError(
            f"there is no hand model at {path}",
            "the path is mistyped or nothing was installed",
            "run `usthand hand install PATH` with your MANO_RIGHT.pkl, or leave the hand out to use the embedded one",
        )
    content = _read_npz(path) if path.suffix == ".npz" else read_pickle(path)
    arrays = {key: np.asarray(content[key]) for key in LAYOUT if key in content}
    check_arrays(arrays, path.name)
    return arrays


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsthandError(
            f"{path.name} is no readable npz file ({error})",
            "it was cut short or holds pickled objects",
            "run `usthand hand install PATH` again with the original MANO_RIGHT.pkl",
        ) from error


def check_arrays(arrays: dict[str, np.ndarray], name: str) -> None:
    """Shapes and plain sanity of a right hand's arrays.

    Raises:
        UsthandError: If something is wrong; it names the first such thing.
    """
    fix = "give MANO_RIGHT.pkl of MANO 1.2 (https://mano.is.tue.mpg.de), or a file that `usthand hand export` wrote"

    def refuse(fact: str, cause: str) -> None:
        raise UsthandError(f"{name} {fact}", cause, fix)

    for key, shape in LAYOUT.items():
        if key not in arrays:
            refuse(f"has no {key}", "it is not a hand in MANO's layout")
        if arrays[key].shape != shape:
            refuse(
                f"has {key} of shape {arrays[key].shape}, not {shape}", "it is another model, perhaps SMPL-X or NIMBLE"
            )
        if arrays[key].dtype.kind not in "fiu" or not np.isfinite(arrays[key]).all():
            refuse(f"holds something in {key} that is no number", "it is damaged")
    if tuple(arrays["kintree_table"][0, 1:].astype(np.int64)) != MANO_PARENTS[1:]:
        refuse("has its joints in another order", "it is another model or was reordered")
    if arrays["f"].min() < 0 or arrays["f"].max() >= N_VERTICES:
        refuse("has triangles with vertices that do not exist", "it is damaged")
    for key in ("weights", "J_regressor"):
        if np.abs(arrays[key].sum(1) - 1).max() > 1e-3:
            refuse(f"has rows of {key} that do not sum to one", "it is damaged")
    extent = float(np.ptp(arrays["v_template"], axis=0).max())
    if not 0.1 < extent < 0.4:
        refuse(f"is {extent:.3g} m long", "its unit is not the metre")
    joints = arrays["J_regressor"] @ arrays["v_template"]
    if joints[4, 0] > joints[0, 0]:
        refuse("is a left hand", "its fingers point along +x; the left hand is made by mirroring the right one")


# ---- installing and exporting --------------------------------------------------------------------------------------


def installed_path() -> Path:
    """Where the user's own hand is installed: $USTHAND_HAND, or usthand/mano.npz in the user's data folder."""
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT])
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "usthand" / "mano.npz"


def _installed() -> Path:
    path = installed_path()
    if not path.is_file():
        raise UsthandError(
            f"no MANO hand is installed at {path}",
            "its licence keeps it out of this package",
            "run `usthand hand install PATH` with your MANO_RIGHT.pkl, or use the embedded hand",
        )
    return path


def install(path: str | Path) -> Path:
    """Check a hand's file and copy it, as npz, to where `load_hand("mano")` finds it; returns that path.

    Raises:
        UsthandError: If the file is no right hand in MANO's layout, or a different hand is installed already.
    """
    arrays: dict[str, Any] = read_hand(path)
    target = installed_path()
    if target.suffix != ".npz":
        raise UsthandError(
            f"${ENVIRONMENT} is {target}",
            "an installed hand is an npz file",
            f"set ${ENVIRONMENT} to a path that ends in .npz",
        )
    if target.exists():
        old = read_hand(target)
        if all(np.array_equal(old[key], arrays[key]) for key in LAYOUT):
            return target
        raise UsthandError(
            f"another hand is installed at {target}",
            "it differs from the one you gave",
            f"remove it first: `rm {target}`",
        )
    with whole_file(target) as partial:
        np.savez_compressed(partial, **arrays)
    return target


def export(path: str | Path, side: str = "right") -> Path:
    """Write the embedded hand in MANO's file layout: .pkl as the official files, without chumpy, or .npz.

    Raises:
        UsthandError: If the file exists, or its suffix is neither.
    """
    path = Path(path)
    if path.suffix not in (".pkl", ".npz"):
        raise UsthandError(
            f"{path.name} is neither .pkl nor .npz", "the suffix chooses the format", "name it, say, HAND_RIGHT.pkl"
        )
    refuse_existing([path], cause="it may be a hand you need", fix="remove it or choose another name")
    content = mano_layout(load_hand(side=side, dtype=torch.float64))
    if path.suffix == ".npz":
        with whole_file(path) as partial:
            np.savez_compressed(partial, **content)
        return path
    content["J_regressor"] = sparse.csc_matrix(content["J_regressor"])
    # Protocol 2 and numpy's old module name, so that older numpy and Python's "latin1" readers take it.
    data = pickle.dumps(content, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with whole_file(path) as partial:
        partial.write_bytes(data)
    return path


def mano_layout(hand: HandModel) -> dict[str, Any]:
    """The embedded hand, of either side, under MANO's keys; float64 arrays."""
    arrays = embedded_arrays()
    parents = np.array(MANO_PARENTS, np.int64)
    parents[0] = 2**32 - 1  # what MANO's files have for "none"
    return {
        "v_template": hand.v_template.numpy(),
        "shapedirs": hand.shapedirs.numpy(),
        "posedirs": hand.posedirs.numpy(),
        "J_regressor": np.asarray(arrays["J_regressor"], np.float64),
        "J": hand.joints_template.numpy(),
        "weights": hand.weights.numpy(),
        "f": hand.faces.numpy().astype(np.uint32),
        "kintree_table": np.stack((parents, np.arange(N_MANO_JOINTS))),
        "hands_components": hand.hands_components.numpy(),
        "hands_mean": hand.hands_mean.numpy(),
        "hands_coeffs": np.asarray(arrays["hands_coeffs"], np.float64),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }
