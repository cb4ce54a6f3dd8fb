"""Turn the WebXR community's generic hand into `usthand/datasets/synthetic/data/webxr_hand.npz`.

    npm pack @webxr-input-profiles/assets@1.0.20 && tar xzf webxr-input-profiles-assets-1.0.20.tgz
    python tools/convert_webxr_hand.py package/dist/profiles/generic-hand/right.glb

Doubled vertices along texture seams are merged, the lid on the wrist is cut off, metacarpal bones join the hand's, and
tips become the skin vertex farthest from the last joint.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "src" / "usthand" / "datasets" / "synthetic" / "data" / "webxr_hand.npz"
TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
PARTS = ("phalanx-proximal", "phalanx-intermediate", "phalanx-distal")
FINGERS = ("index", "middle", "pinky", "ring")  # MANO's order, the thumb last
BEHIND_WRIST_M = 0.017  # the lid lies farther behind


def read_glb(path: Path) -> tuple[dict, bytes]:
    """Description and binary part of a glTF 2.0 file."""
    data = path.read_bytes()
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


def array(described: dict, binary: bytes, number: int) -> np.ndarray:
    """One accessor, (count, width); nothing is interleaved in this file."""
    accessor = described["accessors"][number]
    view = described["bufferViews"][accessor["bufferView"]]
    at, width = view.get("byteOffset", 0) + accessor.get("byteOffset", 0), WIDTHS[accessor["type"]]
    values = np.frombuffer(binary, TYPES[accessor["componentType"]], accessor["count"] * width, at)
    return values.reshape(-1, width)


def convert(path: Path, out: Path = OUT) -> None:
    """Write vertices, faces, weights (N, 17) as `SkinnedHand` has them, and joints (21, 3); metres, wrist at 0."""
    described, binary = read_glb(path)
    part, skin = described["meshes"][0]["primitives"][0], described["skins"][0]
    names = [described["nodes"][node]["name"] for node in skin["joints"]]
    inverse = array(described, binary, skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
    heads = dict(zip(names, np.linalg.inv(inverse.astype(float))[:, :3, 3], strict=True))
    groups = [["wrist", *(name for name in names if name.endswith("-metacarpal") and not name.startswith("thumb"))]]
    groups += [[f"{finger}-finger-{part}"] for finger in FINGERS for part in PARTS]
    groups += [["thumb-metacarpal"], ["thumb-phalanx-proximal"], ["thumb-phalanx-distal"]]
    for name in names:  # a tip's bone, where it moves anything, is the last phalanx's
        if name.endswith("-tip"):
            last = name.replace("-tip", "-phalanx-distal")
            next(group for group in groups if last in group).append(name)
    positions = array(described, binary, part["attributes"]["POSITION"]).astype(float)
    dense = np.zeros((len(positions), len(names)))
    bones, share = (array(described, binary, part["attributes"][name]) for name in ("JOINTS_0", "WEIGHTS_0"))
    np.add.at(dense, (np.arange(len(dense))[:, None], bones), share)
    _, first, same = np.unique(positions.round(6), axis=0, return_index=True, return_inverse=True)
    faces = same.ravel()[array(described, binary, part["indices"]).reshape(-1, 3)]
    vertices = positions[first] - heads["wrist"]
    weights = np.stack(
        [np.zeros(len(first)), *(dense[first][:, [names.index(n) for n in g]].sum(1) for g in groups)], 1
    )
    up = -heads["middle-finger-phalanx-proximal"] + heads["wrist"]
    faces = faces[(vertices @ (up / np.linalg.norm(up)) < BEHIND_WRIST_M)[faces].all(1)]
    kept, faces = np.unique(faces, return_inverse=True)
    thumb = [f"thumb-{name}" for name in ("metacarpal", "phalanx-proximal", "phalanx-distal", "tip")]
    others = [f"{f}-finger-{p}" for f in ("index", "middle", "ring", "pinky") for p in (*PARTS, "tip")]
    joints = np.stack([heads[name] for name in ("wrist", *thumb, *others)]) - heads["wrist"]
    weights = weights[kept] / weights[kept].sum(1, keepdims=True)
    for finger, last in enumerate((16, 4, 7, 13, 10)):  # thumb to little finger; WebXR's tips lie in the flesh
        own = np.flatnonzero(weights[:, last] > 0.999)
        away = np.linalg.norm(vertices[kept][own] - joints[4 * finger + 3], axis=1)
        joints[4 * finger + 4] = vertices[kept][own[away.argmax()]]
    np.savez_compressed(
        out,
        vertices_m=vertices[kept].astype(np.float32),
        faces=faces.reshape(-1, 3).astype(np.int16),
        weights=weights.astype(np.float32),
        joints_m=joints.astype(np.float32),
    )


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
