"""Hands on disk: the embedded one, and files in MANO's layout, read without chumpy."""

from __future__ import annotations

from importlib import resources

import numpy as np
import torch

from usthand.hand.model import TIP_IDS, HandModel

FIELDS = ("nail", "palmar", "finger")
"""Per-vertex keys of the embedded file that are no part of MANO's layout."""


def load_hand(path=None, side: str = "right", dtype: torch.dtype = torch.float32) -> HandModel:
    """The embedded hand."""
    with resources.files("usthand.hand").joinpath("data/embedded.npz").open("rb") as file:
        arrays = dict(np.load(file))
    hand = hand_from_arrays(arrays, dtype)
    return hand.mirrored() if side == "left" else hand


def hand_from_arrays(arrays: dict[str, np.ndarray], dtype: torch.dtype = torch.float32, name: str = "embedded") -> HandModel:
    """A right hand from arrays in MANO's layout; joints are regressed in float64."""
    def real(value):
        return torch.as_tensor(np.asarray(value, np.float64)).to(dtype)

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
        faces=torch.as_tensor(np.asarray(arrays["f"], np.int64)),
        tip_ids=torch.tensor(TIP_IDS),
        name=name,
        fields={key: real(arrays[key]) for key in FIELDS if key in arrays},
    )
