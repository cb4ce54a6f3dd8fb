"""Reading pickles without running anything that is in them.

A pickle may name any function to call. These readers know the constructors of numpy's arrays and of torch's tensors and
nothing else; whoever needs more names adds them one by one. Tensors come out as arrays.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Literal

import numpy as np

from usthand.common.errors import UsthandError

_NUMPY_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, KeyError, IndexError, RuntimeError)


class ArrayUnpickler(pickle.Unpickler):
    """Knows plain containers and numpy's arrays; refuses every other name and remembers it in `refused`."""

    refused: str | None = None

    def known(self, module: str, name: str) -> object | None:
        """What stands for a name of the pickle, or None where it is refused."""
        if module in _NUMPY_MULTIARRAY and name == "_reconstruct":
            return np.zeros(1).__reduce__()[0]
        if module in _NUMPY_MULTIARRAY and name == "scalar":
            return np.float64(0).__reduce__()[0]
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":  # protocol 5
            return _array_of_buffer
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module == "_codecs" and name == "encode":
            return _encode
        return None

    def find_class(self, module: str, name: str) -> object:
        """What stands for a name of the pickle.

        Raises:
            UnpicklingError: If it is refused.
        """
        found = self.known(module, name)
        if found is None:
            self.refused = f"{module}.{name}"
            raise pickle.UnpicklingError(f"{module}.{name} is refused")
        return found


class TensorUnpickler(ArrayUnpickler):
    """Knows torch's tensors too, as a plain `pickle.dump` writes them, and hands them out as arrays."""

    def known(self, module: str, name: str) -> object | None:
        """As `ArrayUnpickler.known`, and the constructors of tensors."""
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _array_of_tensor
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _array_of_storage
        if (module, name) == ("collections", "OrderedDict"):  # a tensor's hooks: always empty
            return OrderedDict
        return super().known(module, name)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # How Python 3 writes bytes in protocol 2.
    return text.encode("latin1") if encoding == "latin1" else text.encode("utf-8")


def _array_of_buffer(
    buffer: bytes | bytearray | pickle.PickleBuffer, dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]
) -> np.ndarray:
    return np.frombuffer(memoryview(buffer), dtype).reshape(shape, order=order).copy(order="A")


def _array_of_storage(content: bytes) -> np.ndarray:
    """The numbers of a tensor's storage, itself a small torch file; torch's own restricted reader opens it."""
    import torch

    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return torch.empty(0, dtype=storage.dtype).set_(storage).numpy()


def _array_of_tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: object) -> np.ndarray:
    """A tensor's values as an array of their own.

    Raises:
        ValueError: If its size and stride reach beyond the storage.
    """
    storage, size, stride = np.asarray(storage), tuple(map(int, size)), tuple(map(int, stride))
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise ValueError("a tensor of impossible shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.zeros(size, storage.dtype)
    if storage.ndim != 1 or last >= len(storage):
        raise ValueError("a tensor larger than its storage")
    strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def load_pickle(path: Path, reader: type[ArrayUnpickler], holds: str, fix: str) -> object:
    """What is in a pickle, of Python 2 too.

    Args:
        path: The file.
        reader: Which names are known.
        holds: In words, what the file is: "a hand".
        fix: The command or action that fixes a bad file.

    Raises:
        UsthandError: If it is missing, is no pickle, or names anything that `reader` does not know; nothing runs.
    """
    try:
        with open(path, "rb") as file:
            unpickler = reader(file, encoding="latin1")
            try:
                return unpickler.load()
            except _BROKEN as error:
                if unpickler.refused:
                    raise UsthandError(
                        f"{path.name} asks for {unpickler.refused}, which was not run",
                        f"{holds} needs only arrays, so this is another pickle or one that was tampered with",
                        fix,
                    ) from error
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UsthandError(
                    f"{path.name} is no readable pickle ({reason})", "the download was cut short", fix
                ) from error
    except OSError as error:
        raise UsthandError(f"{path} cannot be read ({error.strerror})", "it is missing or locked", fix) from error
