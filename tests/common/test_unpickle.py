"""Pickles of arrays and tensors: read as they are, and refused unrun where they name anything else."""

from __future__ import annotations

import io
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch

from support.dataset_scene import Hostile
from usthand.common.errors import UsthandError
from usthand.common.unpickle import ArrayUnpickler, TensorUnpickler, load_pickle


def read(path, reader=TensorUnpickler):
    return load_pickle(path, reader, "a test", "do nothing")


def dump(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_tensors_and_arrays_come_out_as_arrays(tmp_path, protocol):
    base = torch.arange(24.0).reshape(2, 3, 4)
    content = {
        "turned": base.transpose(0, 2),
        "part": base[1, :, 1:3],
        "one": torch.tensor(3.5),
        "none": torch.zeros(0, 3),
        "double": torch.ones(2, dtype=torch.float64),
        "whole": torch.arange(5),
        "grown": torch.ones(3, requires_grad=True),
        "array": np.eye(3),
        "numbers": [np.float32(2), 3, None, "x"],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read(dump(tmp_path / "a.pkl", content, protocol))
    for key, value in content.items():
        if isinstance(value, torch.Tensor):
            assert isinstance(found[key], np.ndarray)
            np.testing.assert_array_equal(found[key], value.detach().numpy())
            assert found[key].dtype == value.detach().numpy().dtype
    np.testing.assert_array_equal(found["array"], content["array"])
    assert found["numbers"] == content["numbers"]


def test_strings_of_python_2_are_read(tmp_path):
    path = tmp_path / "py2.pkl"
    path.write_bytes(b"(dp0\nS'name'\np1\nS'caf\\xe9'\np2\ns.")
    assert read(path, ArrayUnpickler) == {"name": "caf\xe9"}


@pytest.mark.parametrize("reader", [ArrayUnpickler, TensorUnpickler])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, reader, protocol):
    path = dump(tmp_path / "evil.pkl", {"a": np.eye(2), "b": Hostile(tmp_path / "marker")}, protocol)
    with pytest.raises(UsthandError, match=r"asks for .*, which was not run"):
        read(path, reader)
    assert not (tmp_path / "marker").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "marker").exists()  # it would have run


class Stored:
    """Stands for a tensor whose storage holds any bytes."""

    def __init__(self, content: bytes, offset=0, size=(3,), stride=(1,)):
        self.rest = offset, size, stride, False, OrderedDict()
        self.content = content

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (Inner(self.content), *self.rest)


class Inner:
    def __init__(self, content: bytes):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


def storage_bytes(numbers: int = 3) -> bytes:
    opened = io.BytesIO()
    torch.save(torch.zeros(numbers).storage(), opened, _use_new_zipfile_serialization=False)
    return opened.getvalue()


def test_a_hostile_storage_inside_a_tensor_is_refused_and_not_run(tmp_path):
    opened = io.BytesIO()
    torch.save(Hostile(tmp_path / "marker"), opened, _use_new_zipfile_serialization=False)
    for content in (opened.getvalue(), pickle.dumps(Hostile(tmp_path / "marker"), 2), b"\0", b"nothing"):
        with pytest.raises(UsthandError, match="no readable pickle"):
            read(dump(tmp_path / "evil.pkl", Stored(content)))
        assert not (tmp_path / "marker").exists()


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    "offset, size, stride",
    [(0, (4,), (1,)), (1, (3,), (1,)), (0, (2, 2), (2, 1)), (0, (2,), (-1,)), (-1, (2,), (1,)), (0, (2, 2), (1,))],
)
def test_a_tensor_reaches_nowhere_beyond_its_storage(tmp_path, offset, size, stride):
    assert read(dump(tmp_path / "good.pkl", Stored(storage_bytes()))).shape == (3,)
    with pytest.raises(UsthandError, match="no readable pickle"):
        read(dump(tmp_path / "evil.pkl", Stored(storage_bytes(), offset, size, stride)))


def test_arrays_alone_are_read_without_the_names_of_tensors(tmp_path):
    with pytest.raises(UsthandError, match=r"asks for torch\._utils\._rebuild_tensor_v2"):
        read(dump(tmp_path / "a.pkl", torch.zeros(2)), ArrayUnpickler)


def test_broken_and_missing_files_are_told(tmp_path):
    whole = pickle.dumps({"a": np.eye(3)})
    (tmp_path / "cut.pkl").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pkl").write_bytes(b"")
    for name in ("cut.pkl", "empty.pkl"):
        with pytest.raises(UsthandError, match="no readable pickle"):
            read(tmp_path / name)
    with pytest.raises(UsthandError, match="cannot be read"):
        read(tmp_path / "absent.pkl")
