"""Hand files: round trips, chumpy-like pickles, malicious ones, and what is refused."""

from __future__ import annotations

import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from scipy import sparse

from usthand.common.errors import UsthandError
from usthand.hand.io import LAYOUT, embedded_arrays, export, install, installed_path, load_hand, read_hand


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's data folder of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.delenv("USTHAND_HAND", raising=False)
    return tmp_path


def mano_dict() -> dict:
    arrays = {key: np.array(embedded_arrays()[key], np.float64) for key in LAYOUT}
    arrays["f"] = arrays["f"].astype(np.uint32)
    arrays["kintree_table"] = arrays["kintree_table"].astype(np.int64)
    return arrays


def write_pickle(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def assert_same_hand(a, b):
    for name in (
        "v_template",
        "shapedirs",
        "posedirs",
        "joints_template",
        "weights",
        "hands_mean",
        "hands_components",
        "faces",
    ):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_export_and_read_give_the_same_hand(tmp_path, suffix):
    path = export(tmp_path / f"HAND_RIGHT{suffix}")
    assert_same_hand(load_hand(path, dtype=torch.float64), load_hand(dtype=torch.float64))


def test_the_exported_pickle_is_what_readers_of_mano_expect(tmp_path):
    with open(export(tmp_path / "HAND_RIGHT.pkl"), "rb") as file:
        raw = file.read()
    assert b"numpy._core" not in raw  # older numpy has no such module
    content = pickle.loads(raw, encoding="latin1")
    for key, shape in LAYOUT.items():
        assert content[key].shape == shape, key
    assert sparse.issparse(content["J_regressor"]) and content["J_regressor"].format == "csc"
    assert (content["bs_style"], content["bs_type"]) == ("lbs", "lrotmin")
    assert content["kintree_table"][0, 0] == 2**32 - 1
    assert content["hands_coeffs"].shape[1] == 45
    np.testing.assert_allclose(content["J_regressor"] @ content["v_template"], content["J"], atol=1e-12)


def test_an_exported_left_hand_is_the_mirror_and_is_not_taken_for_a_right_one(tmp_path):
    path = export(tmp_path / "HAND_LEFT.pkl", side="left")
    content = pickle.loads(path.read_bytes(), encoding="latin1")
    np.testing.assert_allclose(content["v_template"] * (-1, 1, 1), embedded_arrays()["v_template"], atol=1e-12)
    with pytest.raises(UsthandError, match="left hand"):
        load_hand(path)


def test_export_never_writes_over_a_file(tmp_path):
    path = tmp_path / "HAND_RIGHT.pkl"
    path.write_text("precious")
    with pytest.raises(UsthandError, match="is there already"):
        export(path)
    assert path.read_text() == "precious"
    with pytest.raises(UsthandError, match="suffix"):
        export(tmp_path / "hand.obj")


# ---- pickles with chumpy and scipy inside --------------------------------------------------------------------------


@pytest.fixture
def chumpy(monkeypatch):
    """A stand-in for chumpy's modules, there only while the pickle is written."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering", "chumpy.linalg")}

    def make(module: str, name: str) -> type:
        cls = type(name, (), {"__module__": module})
        setattr(modules[module], name, cls)
        return cls

    classes = types.SimpleNamespace(
        Ch=make("chumpy.ch", "Ch"), Select=make("chumpy.reordering", "Select"), Svd=make("chumpy.linalg", "Svd")
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def hide():
        for name in modules:
            monkeypatch.delitem(sys.modules, name)

    classes.hide = hide
    return classes


def instance(cls, **state):
    thing = cls()
    thing.__dict__.update(state)
    return thing


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_chumpy_pickles_are_read_without_chumpy(tmp_path, chumpy, protocol):
    content = mano_dict()
    leaf = instance(chumpy.Ch, x=content["shapedirs"], _dirty_vars={"x"}, _itr=None)
    wide = np.concatenate((content["v_template"].ravel(), np.zeros(7)))
    content["v_template"] = instance(
        chumpy.Select, a=instance(chumpy.Ch, x=wide), idxs=np.arange(778 * 3), preferred_shape=(778, 3)
    )
    content["shapedirs"] = leaf
    content["J_regressor"] = sparse.csc_matrix(content["J_regressor"])
    path = write_pickle(tmp_path / "MANO_RIGHT.pkl", content, protocol)
    chumpy.hide()
    assert_same_hand(load_hand(path, dtype=torch.float64), load_hand(dtype=torch.float64))
    assert not any(name.startswith("chumpy") for name in sys.modules)


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.coo_matrix, sparse.csc_array])
def test_every_common_sparse_format_is_read(tmp_path, make):
    content = mano_dict() | {"J_regressor": make(mano_dict()["J_regressor"])}
    assert_same_hand(
        load_hand(write_pickle(tmp_path / "a.pkl", content), dtype=torch.float64), load_hand(dtype=torch.float64)
    )


def test_old_module_names_of_scipy_and_numpy_are_read(tmp_path):
    content = mano_dict() | {"J_regressor": sparse.csc_matrix(mano_dict()["J_regressor"])}
    data = pickle.dumps(content, protocol=2)
    old = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n").replace(
        b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n"
    )
    assert b"scipy.sparse.csc\n" in old and b"numpy.core.multiarray\n" in old
    (tmp_path / "old.pkl").write_bytes(old)
    assert_same_hand(load_hand(tmp_path / "old.pkl", dtype=torch.float64), load_hand(dtype=torch.float64))


def test_an_unknown_chumpy_operation_is_told_apart(tmp_path, chumpy):
    path = write_pickle(tmp_path / "a.pkl", mano_dict() | {"v_template": instance(chumpy.Svd, thing=1)})
    chumpy.hide()
    with pytest.raises(UsthandError, match="Svd"):
        load_hand(path)


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "function, arguments",
    [
        (os.mkdir, ("PATH",)),
        (eval, ("__import__('os').mkdir('PATH')",)),
        (os.system, ("mkdir PATH",)),
        (np.save, ("PATH", [1.0])),
    ],
)
def test_malicious_pickles_are_refused_and_not_run(tmp_path, function, arguments):
    trap = tmp_path / "trap"
    arguments = tuple(a.replace("PATH", str(trap)) if isinstance(a, str) else a for a in arguments)
    path = write_pickle(tmp_path / "a.pkl", mano_dict() | {"extra": Malicious(function, *arguments)})
    with pytest.raises(UsthandError, match="was not run"):
        load_hand(path)
    assert not list(tmp_path.glob("trap*"))


def test_the_reconstructor_makes_stubs_only(tmp_path):
    # copyreg._reconstructor would make any object of an allowed class; ours refuses all but stubs.
    raw = b"ccopyreg\n_reconstructor\n(cnumpy\nndarray\ncbuiltins\nobject\nNtR."
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(UsthandError, match="no readable pickle"):
        load_hand(tmp_path / "a.pkl")


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, words",
    [
        ({"v_template": np.zeros((779, 3))}, "shape"),
        ({"posedirs": None}, "no number|no posedirs|shape"),
        ({"v_template": np.full((778, 3), np.nan)}, "no number"),
        ({"weights": np.full((778, 16), 0.5)}, "sum to one"),
        ({"kintree_table": np.zeros((2, 16))}, "another order"),
        ({"f": np.full((1538, 3), 778)}, "do not exist"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, change, words):
    path = write_pickle(tmp_path / "a.pkl", mano_dict() | change)
    with pytest.raises(UsthandError, match=words):
        load_hand(path)


def test_millimetres_are_noticed(tmp_path):
    content = mano_dict()
    content["v_template"] *= 1000
    with pytest.raises(UsthandError, match="unit"):
        load_hand(write_pickle(tmp_path / "a.pkl", content))


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_missing_cut_and_foreign_files(tmp_path, suffix):
    with pytest.raises(UsthandError, match="no hand model"):
        load_hand(tmp_path / f"none{suffix}")
    whole = export(tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsthandError, match="no readable"):
        load_hand(tmp_path / f"cut{suffix}")
    (tmp_path / f"text{suffix}").write_text("hello")
    with pytest.raises(UsthandError, match="no readable"):
        load_hand(tmp_path / f"text{suffix}")


def test_a_missing_key_is_named(tmp_path):
    content = mano_dict()
    del content["hands_mean"]
    with pytest.raises(UsthandError, match="hands_mean"):
        load_hand(write_pickle(tmp_path / "a.pkl", content))


def test_sides_are_two():
    with pytest.raises(UsthandError, match="upper"):
        load_hand(side="upper")


# ---- installing ----------------------------------------------------------------------------------------------------


def test_install_puts_the_hand_where_load_finds_it(home):
    with pytest.raises(UsthandError, match="no MANO hand is installed"):
        load_hand("mano")
    target = install(export(home / "HAND_RIGHT.pkl"))
    assert target == installed_path() == home / "share" / "usthand" / "mano.npz"
    assert_same_hand(load_hand("mano", dtype=torch.float64), load_hand(dtype=torch.float64))
    assert load_hand("mano").name == "mano"


def test_install_again_is_fine_but_another_hand_is_not_written_over(home):
    source = export(home / "HAND_RIGHT.pkl")
    target = install(source)
    before = target.read_bytes()
    assert install(source) == target
    other = mano_dict()
    other["v_template"] *= 1.01
    with pytest.raises(UsthandError, match="another hand is installed"):
        install(write_pickle(home / "other.pkl", other))
    assert target.read_bytes() == before


def test_a_bad_file_installs_nothing(home):
    with pytest.raises(UsthandError):
        install(write_pickle(home / "bad.pkl", {"v_template": 1}))
    assert not installed_path().exists()


def test_the_environment_chooses_the_place(home, monkeypatch):
    monkeypatch.setenv("USTHAND_HAND", str(home / "mine.npz"))
    assert install(export(home / "HAND_RIGHT.pkl")) == home / "mine.npz"
    monkeypatch.setenv("USTHAND_HAND", str(home / "HAND_RIGHT.pkl"))
    assert load_hand("mano").name == "HAND_RIGHT"
    with pytest.raises(UsthandError, match=r"ends in \.npz"):
        install(home / "HAND_RIGHT.pkl")


def test_reading_gives_the_layout_and_no_more(tmp_path):
    assert set(read_hand(export(tmp_path / "a.npz"))) == set(LAYOUT)
