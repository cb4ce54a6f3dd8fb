"""The 21 joints of a hand and their exact derivatives, for many frames at once.

Unknowns of a frame: the rotation of the whole hand (a matrix; steps are rotation vectors applied from the left, in the
world), the wrist's position (metres, world) and the free angles (radians, `usthand.hand.limits.FREE`). All frames share
the shape, and where on the bones a detector sees the joints (`HandState.offsets_m`). The wrist is an unknown in place
of MANO's translation because it depends little on the shape; `translation_m` gives MANO's. Float64. Legend: T frames,
J = 21 joints, D unknowns of a frame, A free angles, S shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from usthand.fit.arrow_system import InverseBlocks
from usthand.geometry.rotations import rotation_matrix, rotation_vector
from usthand.hand.limits import FREE, LIMITS_RAD, anatomical_axes
from usthand.hand.model import HandModel
from usthand.hand.skeleton import BONES, MANO_PARENTS, MANO_TO_OPENPOSE, N_JOINTS

N_MANO = len(MANO_PARENTS)
N_OFFSETS = 3 * N_JOINTS
ROOT = slice(0, 3)
WRIST = slice(3, 6)
FIRST_ANGLE = 6


def cross_matrix(v: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3 3"]:
    """The matrix K of the cross product, K b = v x b."""
    out = np.zeros((*v.shape, 3))
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -z, y, -x
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = z, -y, x
    return out


def left_jacobian(v: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3 3"]:
    """J with R(v + d) ~ R(J d) R(v) for R = rotation_matrix (Barfoot, State Estimation for Robotics, 7.1.5)."""
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    safe = np.maximum(angle, 1e-4)
    cubic = np.where(angle < 1e-4, 1 / 6, (safe - np.sin(safe)) / safe**3)
    k = cross_matrix(v)
    return np.eye(3) + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * k + cubic * (k @ k)


def inverse_left_jacobian(v: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3 3"]:
    """The inverse of `left_jacobian`, in closed form; for angles below 2 pi."""
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    safe = np.maximum(angle, 1e-3)
    square = np.where(angle < 1e-3, 1 / 12, (1 - 0.5 * safe / np.tan(0.5 * safe)) / safe**2)
    k = cross_matrix(v)
    return np.eye(3) - 0.5 * k + square * (k @ k)


@dataclass
class HandState:
    """The unknowns of a sequence."""

    root: Float[np.ndarray, "T 3 3"]
    """Rotation of the whole hand, world from hand."""
    wrist_m: Float[np.ndarray, "T 3"]
    """Position of the wrist joint, world."""
    angles: Float[np.ndarray, "T A"]
    """Free finger angles, radians."""
    shape: Float[np.ndarray, "S"]
    """Shape coefficients, shared by all frames."""
    offsets_m: Float[np.ndarray, "J 3"] = field(default_factory=lambda: np.zeros((N_JOINTS, 3)))
    """Where a detector sees each joint, less the model's joint, in the rest pose's axes of the bone that ends in it;
    shared by all frames (`usthand.fit.detector_joints`)."""

    def moved(self, step: Float[np.ndarray, "T D"], step_shared: Float[np.ndarray, "shared"]) -> HandState:
        """The state after a step of `(rotation vector, wrist, angles)` a frame and of the shape (and offsets)."""
        n_shape = len(self.shape)
        by_offsets = step_shared[n_shape:].reshape(-1, 3)
        return replace(
            self,
            root=rotation_matrix(step[:, ROOT]) @ self.root,
            wrist_m=self.wrist_m + step[:, WRIST],
            angles=self.angles + step[:, FIRST_ANGLE:],
            shape=self.shape + step_shared[:n_shape],
            offsets_m=self.offsets_m + by_offsets if len(by_offsets) else self.offsets_m,
        )


@dataclass(frozen=True)
class PosedJoints:
    """Joints of a state, world, metres, and their derivatives."""

    joints: Float[np.ndarray, "T J 3"]
    by_frame: Float[np.ndarray, "T J 3 D"]
    """By the unknowns of the frame."""
    by_shared: Float[np.ndarray, "T J 3 shared"]
    """By the shape, or by shape and offsets."""
    turns: Float[np.ndarray, "T J 3 3"] | None = None
    """The derivatives by the offsets by themselves: each joint's by its own."""

    def covariance(self, of: InverseBlocks) -> Float[np.ndarray, "T J 3 3"]:
        """Of the joints, m^2, from that of the unknowns: J_f C_ff J_f' + J_f C_fs J_s' + its transpose + J_s C_ss J_s'.

        This is Laplace's approximation: the curvature of the cost is the inverse covariance.
        """
        known = self.by_shared.shape[-1]
        back = self.by_shared.swapaxes(-1, -2)
        across = self.by_frame @ of.shared[:, None, :, :known] @ back
        own = self.by_frame @ of.frame[:, None] @ self.by_frame.swapaxes(-1, -2)
        return own + across + across.swapaxes(-1, -2) + self.by_shared @ of.corner[:known, :known] @ back


@dataclass(frozen=True)
class Articulation:
    """The parts of a hand model that its 21 joints depend on."""

    joint: Float[np.ndarray, "16 3"]
    """Rest positions of MANO's joints, metres."""
    joint_by_shape: Float[np.ndarray, "16 3 S"]
    tip: Float[np.ndarray, "5 3"]
    """Rest positions of the five tip vertices."""
    tip_by_shape: Float[np.ndarray, "5 3 S"]
    tip_by_pose: Float[np.ndarray, "5 3 15 3 3"]
    """Pose blend shapes of the tips, by the entries of (joint rotation - identity)."""
    tip_weight: Float[np.ndarray, "5 16"]
    axes: Float[np.ndarray, "15 3 3"]
    free: tuple[tuple[int, int], ...]
    """(finger joint 0..14, axis 0..2) of every free angle."""
    low: Float[np.ndarray, "A"]
    high: Float[np.ndarray, "A"]

    @property
    def size(self) -> int:
        """D: unknowns of a frame."""
        return FIRST_ANGLE + len(self.free)

    @property
    def n_shape(self) -> int:
        """S: shape coefficients."""
        return self.joint_by_shape.shape[-1]

    def all_angles(self, angles: Float[np.ndarray, "*b A"]) -> Float[np.ndarray, "*b 15 3"]:
        """Free angles among all, the others zero."""
        full = np.zeros((*angles.shape[:-1], 15, 3))
        joint, axis = np.array(self.free).T
        full[..., joint, axis] = angles
        return full

    def pose(self, state: HandState) -> Float[np.ndarray, "T 48"]:
        """MANO's axis-angle pose about the flat hand."""
        fingers = np.einsum("...ja,jac->...jc", self.all_angles(state.angles), self.axes)
        return np.concatenate([rotation_vector(state.root), fingers.reshape(len(fingers), 45)], axis=1)

    def translation_m(self, state: HandState) -> Float[np.ndarray, "T 3"]:
        """MANO's translation: the wrist less the shaped root joint."""
        return state.wrist_m - (self.joint[0] + self.joint_by_shape[0] @ state.shape)

    def rest_joints(self, shape: Float[np.ndarray, "S"]) -> Float[np.ndarray, "J 3"]:
        """The 21 joints of the flat hand, wrist at zero, OpenPose order."""
        joint = self.joint + self.joint_by_shape @ shape
        rest = np.concatenate([joint, self.tip + self.tip_by_shape @ shape])[list(MANO_TO_OPENPOSE)]
        return rest - rest[:1]

    def rest_joints_by_shape(self) -> Float[np.ndarray, "J 3 S"]:
        """Derivative of `rest_joints`."""
        both = np.concatenate([self.joint_by_shape, self.tip_by_shape])[list(MANO_TO_OPENPOSE)]
        return both - both[:1]

    def bone_turns(self, state: HandState) -> Float[np.ndarray, "T J 3 3"]:
        """Rotation, world from bone, of the bone that ends in each joint; of the wrist, the palm's."""
        return Chain(self, state).turn[:, BONE_TURN]

    def joints(self, state: HandState) -> Float[np.ndarray, "T J 3"]:
        """Joints of all frames, world, metres; tips by linear blend skinning, exactly as in `usthand.hand.model`."""
        return Chain(self, state).joints[:, list(MANO_TO_OPENPOSE)]

    def detected(self, state: HandState) -> Float[np.ndarray, "T J 3"]:
        """Where a detector sees the joints, world, metres: joints plus offsets."""
        chain = Chain(self, state)
        return chain.joints[:, list(MANO_TO_OPENPOSE)] + chain.levers(state.offsets_m)

    def posed(self, state: HandState) -> PosedJoints:
        """The joints of all frames with their derivatives, of which those by the shared unknowns are by shape alone."""
        chain, order = Chain(self, state), list(MANO_TO_OPENPOSE)
        return PosedJoints(chain.joints[:, order], chain.by_frame()[:, order], chain.by_shape()[:, order])

    def posed_detected(self, state: HandState) -> PosedJoints:
        """The joints as a detector sees them, with their derivatives."""
        chain, order = Chain(self, state), list(MANO_TO_OPENPOSE)
        levers = chain.levers(state.offsets_m)
        by_offset = np.zeros((*levers.shape, N_JOINTS, 3))
        joint = np.arange(N_JOINTS)
        turns = chain.turn[:, BONE_TURN]
        by_offset[:, joint, :, joint] = turns.swapaxes(0, 1)
        by_shared = np.concatenate([chain.by_shape()[:, order], by_offset.reshape(*levers.shape, N_OFFSETS)], -1)
        by_frame = chain.by_frame()[:, order] + chain.levers_by_frame(levers)
        return PosedJoints(chain.joints[:, order] + levers, by_frame, by_shared, turns)


def _descendants() -> Bool[np.ndarray, "16 16"]:
    """(16, 16): [k, l] is True where joint l is k or a descendant of it."""
    below = np.eye(N_MANO, dtype=bool)
    for child in range(N_MANO - 1, 0, -1):
        below[MANO_PARENTS[child]] |= below[child]
    return below


DESCENDANTS = _descendants()
BONE_TURN = np.zeros(N_JOINTS, dtype=int)
BONE_TURN[[child for _, child in BONES]] = [MANO_TO_OPENPOSE[parent] for parent, _ in BONES]
"""The MANO joint that rotates the bone that ends in each joint; for the wrist, its own."""


class Chain:
    """Forward kinematics of one state, keeping what the derivatives need."""

    def __init__(self, hand: Articulation, state: HandState) -> None:
        self.hand = hand
        n_frames = len(state.angles)
        self.vector = np.einsum("tja,jac->tjc", hand.all_angles(state.angles), hand.axes)
        self.local = rotation_matrix(self.vector)
        self.bend = left_jacobian(self.vector)
        joint = hand.joint + hand.joint_by_shape @ state.shape
        self.turn = np.empty((n_frames, N_MANO, 3, 3))
        self.origin = np.empty((n_frames, N_MANO, 3))
        self.turn[:, 0], self.origin[:, 0] = state.root, state.wrist_m
        for k in range(1, N_MANO):
            parent = MANO_PARENTS[k]
            self.turn[:, k] = self.turn[:, parent] @ self.local[:, k - 1]
            self.origin[:, k] = self.origin[:, parent] + self.turn[:, parent] @ (joint[k] - joint[parent])
        rest = hand.tip + hand.tip_by_shape @ state.shape
        blend = np.tensordot(self.local - np.eye(3), hand.tip_by_pose, axes=((1, 2, 3), (2, 3, 4)))  # (T, 5, 3)
        lever = (rest + blend)[:, :, None] - joint  # (T, 5, 16, 3)
        # Where each joint alone would carry each tip, and the blend of them.
        self.carried = np.einsum("tkab,tikb->tika", self.turn, lever) + self.origin[:, None]
        self.tip = np.einsum("ik,tika->tia", hand.tip_weight, self.carried)
        self.tip_turn = np.einsum("ik,tkab->tiab", hand.tip_weight, self.turn)
        self.joints = np.concatenate([self.origin, self.tip], axis=1)

    def levers(self, offsets_m: Float[np.ndarray, "J 3"]) -> Float[np.ndarray, "T J 3"]:
        """Offsets in the frames of the bones as vectors in the world."""
        return (self.turn[:, BONE_TURN] @ offsets_m[..., None])[..., 0]

    def levers_by_frame(self, levers: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "T J 3 D"]:
        """Derivative of `levers` by the frame's unknowns."""
        out = np.zeros((*levers.shape, self.hand.size))
        out[..., ROOT] = -cross_matrix(levers)
        for column, (j, _) in enumerate(self.hand.free, start=FIRST_ANGLE):
            carried = DESCENDANTS[j + 1][BONE_TURN]
            out[..., column][:, carried] = np.cross(self.spin(column)[:, None], levers[:, carried])
        return out

    def local_spin(self, column: int) -> Float[np.ndarray, "T 3"]:
        """Angular velocity of a joint's turn as an angle grows, in the frame of the joint's parent."""
        j, axis = self.hand.free[column - FIRST_ANGLE]
        return self.bend[:, j] @ self.hand.axes[j, axis]

    def spin(self, column: int) -> Float[np.ndarray, "T 3"]:
        """The same in the world."""
        parent = MANO_PARENTS[self.hand.free[column - FIRST_ANGLE][0] + 1]
        return (self.turn[:, parent] @ self.local_spin(column)[..., None])[..., 0]

    def by_frame(self) -> Float[np.ndarray, "T J 3 D"]:
        """Derivative of MANO's 16 joints and the tips by the frame's unknowns."""
        hand, n_frames = self.hand, len(self.tip)
        out = np.zeros((n_frames, N_MANO + 5, 3, hand.size))
        out[..., ROOT] = -cross_matrix(self.joints - self.origin[:, :1])
        out[..., WRIST] = np.eye(3)
        for column, (j, _) in enumerate(hand.free, start=FIRST_ANGLE):
            k = j + 1
            local, spin = self.local_spin(column), self.spin(column)[:, None]
            below = np.flatnonzero(DESCENDANTS[k])
            velocity = out[..., column]
            lever = self.origin[:, below] - self.origin[:, k : k + 1]
            velocity[:, below] = np.cross(spin, lever)
            weight = hand.tip_weight[:, below]
            moved = weight.any(1)
            lever = np.einsum("ik,tika->tia", weight[moved], self.carried[:, moved][:, :, below])
            lever -= weight[moved].sum(1)[:, None] * self.origin[:, k : k + 1]
            tips = np.zeros((n_frames, 5, 3))
            tips[:, moved] = np.cross(spin, lever)
            change = cross_matrix(local) @ self.local[:, j]  # of the joint's rotation matrix
            swell = np.tensordot(change, hand.tip_by_pose[:, :, j], axes=((1, 2), (2, 3)))
            velocity[:, N_MANO:] = tips + (self.tip_turn @ swell[..., None])[..., 0]
        return out

    def by_shape(self) -> Float[np.ndarray, "T J 3 S"]:
        """Derivative of the same joints by the shape, at a fixed wrist."""
        hand, n_frames = self.hand, len(self.tip)
        out = np.zeros((n_frames, N_MANO + 5, 3, hand.n_shape))
        for k in range(1, N_MANO):
            parent = MANO_PARENTS[k]
            bone = hand.joint_by_shape[k] - hand.joint_by_shape[parent]
            out[:, k] = out[:, parent] + self.turn[:, parent] @ bone
        held = out[:, :N_MANO] - self.turn @ hand.joint_by_shape
        out[:, N_MANO:] = np.einsum("ik,tkas->tias", hand.tip_weight, held)
        out[:, N_MANO:] += self.tip_turn @ hand.tip_by_shape
        return out


def articulation(hand: HandModel) -> Articulation:
    """The parts of a hand model, of any hand in MANO's layout, that its joints depend on."""
    skeleton = hand.skeleton_model()
    real = {
        name: getattr(skeleton, name).detach().double().numpy()
        for name in ("joints_template", "joints_shapedirs", "v_template", "shapedirs", "posedirs", "weights")
    }
    limits = np.array([LIMITS_RAD[joint][axis] for joint, axis in FREE], dtype=np.float64)
    return Articulation(
        joint=real["joints_template"],
        joint_by_shape=real["joints_shapedirs"],
        tip=real["v_template"],
        tip_by_shape=real["shapedirs"],
        tip_by_pose=real["posedirs"].reshape(5, 3, N_MANO - 1, 3, 3),
        tip_weight=real["weights"],
        axes=np.asarray(anatomical_axes(hand), dtype=np.float64).reshape(N_MANO - 1, 3, 3),
        free=tuple((int(joint), int(axis)) for joint, axis in FREE),
        low=limits[:, 0],
        high=limits[:, 1],
    )
