"""The command line as a user meets it: every command once, and every bad input in one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from usthand.capture.rig import load_rig, save_rig
from usthand.capture.video import write_video
from usthand.cli import main
from usthand.cli.app import COMMANDS
from usthand.hand.result import load_result
from usthand.labels.formats.openpose import write_openpose_json
from usthand.labels.labels import load_npz


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A small capture made by the command itself."""
    path = tmp_path_factory.mktemp("cli") / "cap"
    main(["synth", str(path), "--views", "3", "--frames", "16", "--labels", "exact", "--size", "128", "--seed", "5"])
    return path


@pytest.fixture(scope="module")
def fitted(capture, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "fit.npz"
    main(["fit", str(capture), "--out", str(out)])
    return out


@pytest.fixture
def copy(capture, tmp_path):
    shutil.copytree(capture, tmp_path / "cap")
    return tmp_path / "cap"


def fails(capsys, *arguments: str) -> str:
    """The sentence that a command ends with; exit code 1, no traceback."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    assert stopped.value.code == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("usthand: ") and "Traceback" not in error and len(error.splitlines()) == 1
    assert error.count(";") >= 1 and error.endswith("."), "fact, cause and fix"
    return error


def spoil(path, **changes):
    """Rewrite the right hand's labels with some arrays changed, past every check."""
    file = path / "labels" / "right.npz"
    with np.load(file) as data:
        arrays = {**data, **changes}
    np.savez(file, **arrays)


def test_every_command_has_help(capsys):
    """All that were promised, each by its own `--help`; the ones in a group also by the group's."""
    promised = (
        "init synth import label import-labels check fit train reconstruct evaluate mark overlay demo bench pretrain"
    )
    assert list(COMMANDS) == [*promised.split(), "hand install", "hand export"]
    for name in ("", "hand", *COMMANDS):
        with pytest.raises(SystemExit) as stopped:
            main([*name.split(), "--help"])
        text = capsys.readouterr().out
        assert not stopped.value.code and f"usage: usthand {name}".rstrip() in text
        if name in ("", "hand"):
            mine = [full.split()[-1] for full in COMMANDS if full.startswith(name)]
            assert all(f"• {one} " in text for one in mine if name or one not in ("install", "export"))


def test_help_loads_nothing_heavy():
    """`usthand --help` answers before torch and NumPy are there."""
    code = """
import sys, usthand.cli
try:
    usthand.cli.main(["--help"])
except SystemExit:
    sys.exit(", ".join(m for m in ("torch", "numpy", "scipy", "rich") if m in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "" and "reconstruct" in done.stdout


def test_fit_evaluate_and_raw(capture, fitted, tmp_path, capsys):
    main(["evaluate", str(fitted), "--capture", str(capture), "--json"])
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["mpjpe_mm"] < 3 and numbers["scale"] and numbers["valid_fraction"] == 1
    main(["fit", str(capture), "--raw", "--out", str(tmp_path / "raw.npz")])
    assert load_result(tmp_path / "raw.npz").method == "raw"
    main(["fit", str(capture), "--raw", "--smooth", "--out", str(tmp_path / "smooth.npz")])
    assert load_result(tmp_path / "smooth.npz").method == "smooth"
    assert "add --raw" in fails(capsys, "fit", capture, "--smooth", "--out", tmp_path / "s.npz")
    main(["evaluate", str(tmp_path / "raw.npz")])
    assert "bone_spread_mm" in capsys.readouterr().out
    main(["evaluate", str(tmp_path / "raw.npz"), "--capture", str(capture), "--json"])
    numbers = json.loads(capsys.readouterr().out)  # free joints, and those of the mesh that was fitted to them
    assert {"mpjpe_mm", "mesh_mpjpe_mm", "mesh_mpjpe_pa_mm"} <= set(numbers)


def test_leaving_a_camera_out_is_measured_there(capture, tmp_path, capsys):
    out = tmp_path / "without.npz"
    main(["fit", str(capture), "--leave-out", "cam1", "--out", str(out)])
    capsys.readouterr()
    main(["evaluate", str(out), "--capture", str(capture), "--leave-out", "cam1", "--json"])
    numbers = json.loads(capsys.readouterr().out)
    assert 0 < numbers["leave_out_median_px"] <= numbers["leave_out_p90_px"] < 10
    assert 0 <= numbers["leave_out_coverage50"] <= numbers["leave_out_coverage90"] <= 1
    assert "cam1" not in load_result(out).cameras


def test_joints_may_be_rigid_or_soft(capture, tmp_path, capsys):
    for kind in ("rigid", "soft"):
        main(["fit", str(capture), "--joints", kind, "--out", str(tmp_path / f"{kind}.npz")])
        assert load_result(tmp_path / f"{kind}.npz").joint_model == kind
        assert ("the detector's own are kept" in capsys.readouterr().out) == (kind == "soft")
        main(["evaluate", str(tmp_path / f"{kind}.npz"), "--capture", str(capture), "--json"])
        numbers = json.loads(capsys.readouterr().out)
        assert "mesh_mpjpe_mm" not in numbers  # its joints are the mesh's own


def test_results_of_the_same_person_make_the_shape_surer(capture, tmp_path, capsys):
    first, second, raw = (tmp_path / f"{name}.npz" for name in ("first", "second", "raw"))
    main(["fit", str(capture), "--out", str(first)])
    main(["fit", str(capture), "--same-person", str(first), "--out", str(second)])
    one, two = load_result(first), load_result(second)
    assert np.trace(two.shape_cov) < np.trace(one.shape_cov)
    main(["fit", str(capture), "--raw", "--out", str(raw)])
    said = fails(capsys, "fit", capture, "--same-person", raw, "--out", tmp_path / "third.npz")
    assert "does not say how certain its hand's shape is" in said and not (tmp_path / "third.npz").exists()


def test_labels_imported_from_openpose_files(copy, tmp_path, capsys):
    before = load_npz(copy / "labels" / "right.npz")
    write_openpose_json(before, tmp_path / "json")
    assert "--overwrite" in fails(capsys, "import-labels", copy, tmp_path / "json")
    main(["import-labels", str(copy), str(tmp_path / "json"), "--overwrite"])
    assert "openpose: hands in single images" in capsys.readouterr().out
    after = load_npz(copy / "labels" / "right.npz")
    kept = after.mask.any(axis=-1)
    assert after.detector == "openpose" and kept.mean() > 0.9
    assert np.allclose(after.uv_px[kept], before.uv_px[kept], atol=1e-4)


def test_a_further_hand_is_chosen_by_name(copy, tmp_path, capsys):
    """Two right hands of two people: neither is taken unasked, and the result is measured against its own labels."""
    labels = load_npz(copy / "labels" / "right.npz")
    later = replace(labels, uv_px=np.roll(labels.uv_px, 8, axis=0), confidence=np.roll(labels.confidence, 8, axis=0))
    later.save(copy / "labels" / "right-2.npz")
    assert "labels of 2 hands" in fails(capsys, "fit", copy, "--out", tmp_path / "r.npz")
    main(["fit", str(copy), "--side", "right-2", "--out", str(tmp_path / "r.npz"), "--raw"])
    assert load_result(tmp_path / "r.npz").side == "right"
    assert "--side right-2" in fails(capsys, "evaluate", tmp_path / "r.npz", "--capture", copy)
    numbers = {}
    for side in ("right", "right-2"):
        main(["evaluate", str(tmp_path / "r.npz"), "--capture", str(copy), "--side", side, "--json"])
        numbers[side] = json.loads(capsys.readouterr().out)
    assert numbers["right-2"]["label_residual_median_px"] < 0.1 < numbers["right"]["label_residual_median_px"]
    assert "side 'third' is unknown" in fails(capsys, "fit", copy, "--side", "third", "--out", tmp_path / "s.npz")
    assert "no labels of the left-2 hand" in fails(capsys, "fit", copy, "--side", "left-2", "--out", tmp_path / "s.npz")


def test_overlay_draws_every_camera(capture, fitted, tmp_path):
    main(["overlay", str(fitted), "--capture", str(capture), "--out", str(tmp_path / "o"), "--crop"])
    assert len(list((tmp_path / "o").glob("*.mp4"))) == 3 and (tmp_path / "o" / "contact_sheet.png").is_file()


def test_overlay_says_that_a_surface_has_no_uncertainty(capture, fitted, tmp_path, capsys):
    result = load_result(fitted)
    none, known = np.zeros((len(result), 0, 3, 3), np.float32), np.zeros((len(result), 778, 3, 3), np.float32)
    for name, cov, options, said in (
        ("bare", none, (), True),
        ("bare", none, ("--colour", "plain"), False),
        ("known", known, (), False),
    ):
        path = replace(result, vertices_cov_m2=cov).save(tmp_path / f"{name}.npz")
        main(["overlay", str(path), "--capture", str(capture), "--out", str(tmp_path / "o"), "--overwrite", *options])
        assert ("bare.npz has no uncertainty of the surface" in capsys.readouterr().err) == said


def test_train_and_reconstruct(capture, tmp_path, capsys):
    """Three steps of the real preset: the commands fit together, and a second reconstruction is the same."""
    main(["train", str(capture), "--out", str(tmp_path / "run"), "--steps", "3", "--side", "right"])
    for name in ("a", "b"):
        main(["reconstruct", str(capture), "--run", str(tmp_path / "run"), "--out", str(tmp_path / f"{name}.npz")])
    a, b = load_result(tmp_path / "a.npz"), load_result(tmp_path / "b.npz")
    assert np.array_equal(a.joints_world_m, b.joints_world_m) and a.method == "usthand"
    own = {}
    again = ["reconstruct", str(capture), "--run", str(tmp_path / "run")]
    for answer in ("network", "head"):
        main([*again, "--out", str(tmp_path / "c.npz"), "--answer", answer, "--overwrite"])
        own[answer] = load_result(tmp_path / "c.npz")
        assert own[answer].method == "usthand network"
    assert np.array_equal(own["network"].joints_world_m, own["head"].joints_world_m), (
        "the points are the network's in both"
    )
    assert not np.allclose(own["network"].vertices_world_m, own["head"].vertices_world_m)
    main(["hand", "export", str(tmp_path / "own.npz")])
    main([*again, "--hand", str(tmp_path / "own.npz"), "--out", str(tmp_path / "d.npz")])
    assert np.allclose(load_result(tmp_path / "d.npz").vertices_world_m, a.vertices_world_m, atol=1e-5)


def test_from_scratch_is_kept_in_the_run(capture, tmp_path):
    for name, more in (("shipped", []), ("landmark", ["--from-scratch"])):
        main(["train", str(capture), "--out", str(tmp_path / name), "--steps", "1", *more])
        config = json.loads((tmp_path / name / "last" / "config.json").read_text())
        assert config["preset"]["train"]["start"] == name


def test_reconstruct_without_a_training_uses_the_shipped_weights(capture, tmp_path):
    main(["reconstruct", str(capture), "--out", str(tmp_path / "r.npz"), "--answer", "network"])
    assert load_result(tmp_path / "r.npz").method == "usthand network"


def test_hand_export_and_install(capture, fitted, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("USTHAND_HAND", str(tmp_path / "installed" / "mano_right.npz"))
    main(["hand", "export", str(tmp_path / "hand.pkl")])
    main(["hand", "install", str(tmp_path / "hand.pkl")])
    assert "installed" in capsys.readouterr().out
    # The installed file is the embedded hand in MANO's clothes: results must be the same.
    main(["fit", str(capture), "--hand", "mano", "--out", str(tmp_path / "mano.npz")])
    mano, own = load_result(tmp_path / "mano.npz"), load_result(fitted)
    assert np.allclose(mano.vertices_world_m, own.vertices_world_m, atol=1e-5) and np.array_equal(mano.faces, own.faces)
    fails(capsys, "hand", "install", tmp_path / "nothing.pkl")


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_missing_camera(copy, tmp_path, capsys):
    (copy / "cam2.mp4").unlink()
    assert "camera 'cam2'" in fails(capsys, "fit", copy, "--out", tmp_path / "r.npz")
    assert not (tmp_path / "r.npz").exists()


def test_video_of_another_size(copy, tmp_path, capsys):
    write_video(copy / "cam1.mp4", (np.zeros((64, 96, 3), np.uint8) for _ in range(16)), 30)
    assert "96x64 px but the rig says 128x128" in fails(capsys, "fit", copy, "--out", tmp_path / "r.npz")


def test_no_label_in_any_frame(copy, tmp_path, capsys):
    spoil(copy, confidence=np.zeros((16, 3, 21), np.float32))
    assert "no label in any frame" in fails(capsys, "fit", copy, "--out", tmp_path / "r.npz")


def test_labels_in_one_view_only(copy, tmp_path, capsys):
    confidence = load_npz(copy / "labels" / "right.npz").confidence.copy()
    confidence[:, 1:] = 0
    spoil(copy, confidence=confidence)
    assert "one view only" in fails(capsys, "fit", copy, "--out", tmp_path / "r.npz")


def test_one_camera_only(copy, tmp_path, capsys):
    rig = load_rig(copy / "rig.toml")
    save_rig(rig.without("cam1").without("cam2"), copy / "rig.toml")
    labels = load_npz(copy / "labels" / "right.npz")
    labels.subset(["cam0"]).save(copy / "labels" / "right.npz")
    assert "camera" in fails(capsys, "fit", copy, "--out", tmp_path / "r.npz")
    assert not (tmp_path / "r.npz").exists()


def test_nan_in_labels(copy, tmp_path, capsys):
    uv = load_npz(copy / "labels" / "right.npz").uv_px.copy()
    uv[3, 1, 5] = np.nan
    spoil(copy, uv_px=uv)
    assert "frame 3 of camera 'cam1'" in fails(capsys, "fit", copy, "--out", tmp_path / "r.npz")


def test_truncated_video(copy, tmp_path, capsys):
    whole = (copy / "cam0.mp4").read_bytes()
    (copy / "cam0.mp4").write_bytes(whole[: len(whole) // 2])
    assert "truncated or damaged" in fails(capsys, "train", copy, "--out", tmp_path / "run", "--steps", "1")


def test_unknown_key_in_a_config(copy, tmp_path, capsys):
    (copy / "rig.toml").write_text((copy / "rig.toml").read_text().replace("model =", "modle ="))
    assert "unknown key 'modle'" in fails(capsys, "fit", copy, "--out", tmp_path / "r.npz")


def test_wrong_checkpoint(capture, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"version": 1, "model": {}, "crop": {}}')
    (tmp_path / "run" / "model.safetensors").write_bytes(b"no")
    assert "does not fit" in fails(
        capsys, "reconstruct", capture, "--run", tmp_path / "run", "--out", tmp_path / "r.npz"
    )
    assert "no trained network" in fails(capsys, "reconstruct", capture, "--run", tmp_path, "--out", tmp_path / "r.npz")


def test_nothing_is_written_over(capture, fitted, tmp_path, capsys):
    before = fitted.read_bytes()
    assert "there already" in fails(capsys, "fit", capture, "--out", fitted)
    assert "there already" in fails(capsys, "reconstruct", capture, "--run", tmp_path, "--out", fitted)
    assert fitted.read_bytes() == before
    fails(capsys, "synth", capture)
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "contact_sheet.png").write_bytes(b"mine")
    assert "there already" in fails(capsys, "overlay", fitted, "--capture", capture, "--out", tmp_path / "o")
    assert (tmp_path / "o" / "contact_sheet.png").read_bytes() == b"mine"


def test_unknown_camera_and_missing_labels(capture, copy, tmp_path, capsys):
    assert "no camera 'nine'" in fails(capsys, "fit", capture, "--leave-out", "nine", "--out", tmp_path / "r.npz")
    shutil.rmtree(copy / "labels")
    assert "usthand label" in fails(capsys, "fit", copy, "--out", tmp_path / "r.npz")
    fails(capsys, "evaluate", tmp_path / "none.npz")


def test_import_and_the_layouts_of_synth(tmp_path, capsys, monkeypatch):
    """A bad root, an unknown data set, options that do not go together: one sentence each."""
    monkeypatch.setenv("USTHAND_HAND", str(tmp_path / "none.npz"))
    assert "no folder" in fails(capsys, "import", "hanco", tmp_path / "none", tmp_path / "out")
    assert "no reader for the data set 'hanko'" in fails(capsys, "import", "hanko", tmp_path, tmp_path / "out")
    assert "not HanCo's" in fails(capsys, "import", "hanco", tmp_path, tmp_path / "out")
    assert "no hand model at" in fails(
        capsys, "import", "hanco", tmp_path, tmp_path / "out", "--hand", tmp_path / "m.pkl"
    )
    assert "a number of sequences" in fails(capsys, "import", "hanco", tmp_path, tmp_path / "out", "--limit", "0")
    assert "--layout hanco" in fails(capsys, "synth", tmp_path / "x", "--sequences", "2")
    assert "cannot hold 4 cameras" in fails(capsys, "synth", tmp_path / "x", "--layout", "hanco", "--views", "4")
    assert not (tmp_path / "x").exists() and not (tmp_path / "out").exists()


def test_synth_draws_other_hands_and_evaluate_says_so(tmp_path, capsys):
    """Another mesh in the capture: surfaces in place of vertices, and whose joints they are."""
    path, out = tmp_path / "cap", tmp_path / "fit.npz"
    size = ("--views", "3", "--frames", "6", "--labels", "exact", "--size", "96")
    main(["synth", str(path), "--subject", "webxr", *size])
    main(["fit", str(path), "--out", str(out)])
    capsys.readouterr()
    main(["evaluate", str(out), "--capture", str(path), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["surface_mm"] > 0 and "mpvpe_mm" not in told and told["joints_of_truth"].startswith("WebXR")
    assert "HanCo" in fails(capsys, "synth", tmp_path / "x", "--layout", "hanco", "--subject", "webxr")
