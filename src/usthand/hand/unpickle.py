"""Reading a hand's pickle without running anything that is in it, and without chumpy.

MANO's official files are Python 2 pickles that hold chumpy objects and scipy's sparse matrices. Besides numpy's arrays
this reader knows chumpy's and scipy's classes: they become stubs that only keep their state, which holds the arrays.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from scipy import sparse

from usthand.common.errors import UsthandError
from usthand.common.unpickle import ArrayUnpickler, load_pickle

_SPARSE_FORMATS = ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array")


class Stub:
    """Stands for an object of a class that is not imported; keeps its state."""

    def __setstate__(self, state: dict[str, object] | tuple[dict[str, object] | None, ...]) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # a tuple is (dict, slots)
            self.__dict__.update(part or {})


class ChumpyStub(Stub):
    """An object of chumpy: a leaf holds its value in `x`; `Select` holds an array `a` and flat indices `idxs`."""


class SparseStub(Stub):
    """A sparse matrix of scipy: `data`, `indices`, `indptr` (or `row`, `col`) and `_shape`."""


def _reconstruct_object(cls: type, base: type, state: object) -> object:
    """`copyreg._reconstructor` for plain objects only: what the oldest pickle protocols call to make an instance."""
    if base is not object or not issubclass(cls, Stub):
        raise pickle.UnpicklingError(f"{cls!r} is not expected in a hand")
    return object.__new__(cls)


class HandUnpickler(ArrayUnpickler):
    """Knows a hand's stubs besides arrays."""

    def known(self, module: str, name: str) -> object:
        """The class or stub that a name in the pickle stands for; None if a hand needs no such thing."""
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _reconstruct_object
        if module in ("__builtin__", "builtins") and name in ("object", "set"):
            return {"object": object, "set": set}[name]
        if module == "chumpy" or module.startswith("chumpy."):
            return type(name, (ChumpyStub,), {})
        if module.split(".")[:2] == ["scipy", "sparse"] and name in _SPARSE_FORMATS:
            return type(name, (SparseStub,), {})
        return super().known(module, name)


def read_pickle(path: Path) -> dict[str, object]:
    """The dictionary in a hand's pickle, its values turned into arrays where they are arrays.

    Raises:
        UsthandError: If it is no pickle of a hand, or names anything a hand does not need.
    """
    fix = "download MANO_RIGHT.pkl again from https://mano.is.tue.mpg.de and run `usthand hand install PATH`"
    content = load_pickle(path, HandUnpickler, "a hand", fix)
    if not isinstance(content, dict):
        raise UsthandError(f"{path.name} holds no dictionary", "it is not a hand's file", fix)
    return {str(key): _plain(value, path.name) for key, value in content.items()}


def _plain(value: object, file_name: str) -> object:
    """Arrays out of stubs; other values as they are."""
    if isinstance(value, SparseStub):
        return _dense(value)
    if isinstance(value, ChumpyStub):
        state = vars(value)
        if "x" in state:
            return np.asarray(_plain(state["x"], file_name))
        if {"a", "idxs"} <= state.keys():
            picked = np.asarray(_plain(state["a"], file_name)).ravel()[np.asarray(_plain(state["idxs"], file_name))]
            return picked.reshape(state["preferred_shape"]) if "preferred_shape" in state else picked
        raise UsthandError(
            f"{file_name} holds a chumpy {type(value).__name__} that cannot be read without chumpy",
            "a tool other than MANO's wrote it",
            "save its arrays as .npz and run `usthand hand install PATH.npz`",
        )
    return value


def _dense(stub: SparseStub) -> np.ndarray:
    state, kind = vars(stub), type(stub).__name__[:3]
    shape = state.get("_shape", state.get("shape"))
    if kind == "coo":
        place = state["coords"] if "coords" in state else (state["row"], state["col"])
        return sparse.coo_matrix((state["data"], tuple(place)), shape=shape).toarray()
    build = sparse.csc_matrix if kind == "csc" else sparse.csr_matrix
    return build((state["data"], state["indices"], state["indptr"]), shape=shape).toarray()
