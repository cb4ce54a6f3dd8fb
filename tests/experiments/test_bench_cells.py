"""Cells are run once and kept, and run again where weights, settings or captures have changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.bench import MEASURED, SMALL, Reconstructed, fake_cell, pretend_pretraining
from usthand.common.errors import UsthandError
from usthand.experiments.bench import cells, methods
from usthand.experiments.bench.cells import KEYS, Cell, read_cell, run_cell
from usthand.experiments.bench.fill import FillConfig, fill
from usthand.experiments.bench.methods import METHODS
from usthand.experiments.bench.regimes import captures
from usthand.experiments.bench.tables import MISSING, as_json, labels_of, make_table, markdown
from usthand.experiments.peers.run import PEERS
from usthand.training import checkpoint
from usthand.training.checkpoint import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_cells_are_run_once_and_kept(small, tmp_path, monkeypatch):
    cache, results = tmp_path / "cache", tmp_path / "results"
    for name in ("raw", "hamuco", "usthand"):
        rows = run_cell(Cell("oakink-like", name, 1), cache, results)
        for of in METHODS[name].gives:
            assert set(KEYS) <= set(rows[of]) and rows[of]["frames"] > 0
            assert all(np.isfinite(value) for value in rows[of].values())
        assert read_cell(Cell("oakink-like", name, 1), results) == rows
    assert read_cell(Cell("oakink-like", "raw", 2), results) is not None, "without training all seeds are one"
    assert read_cell(Cell("oakink-like", "usthand", 2), results) is None
    kept = sorted(
        path.name for path in (cache / "runs" / f"oakink-like.heavy.usthand.1.{cells.weights_digest()}").iterdir()
    )
    assert kept == ["best", "ended", "made-of.json", "metrics.jsonl", "tensorboard"], (
        "of a training the weights are kept, not crops and optimiser"
    )
    counts = {read_cell(Cell("oakink-like", name, 1), results)[name]["frames"] for name in ("raw", "hamuco", "usthand")}
    assert len(counts) == 1, "all methods are measured on the same frames"


def test_a_trained_cell_is_measured_again_without_training_and_trained_again_if_settings_changed(
    small, tmp_path, monkeypatch
):
    cell = Cell("oakink-like", "usthand", 0)
    monkeypatch.setattr(cells, "_measure", lambda capture, given: {n: MEASURED for n in given})
    trained, real = [], cells.train
    monkeypatch.setattr(cells, "train", lambda *a, **k: (trained.append(a[2]), real(*a, **k)))
    for _ in range(2):
        run_cell(cell, tmp_path / "cache", tmp_path / "results")
    assert len(trained) == 1
    longer = METHODS["usthand"].preset
    longer = replace(longer, train=replace(longer.train, steps=longer.train.steps + 1))
    monkeypatch.setitem(METHODS, "usthand", replace(METHODS["usthand"], preset=longer))
    run_cell(cell, tmp_path / "cache", tmp_path / "results")
    assert [config.preset.train.steps for config in trained] == [longer.train.steps - 1, longer.train.steps]


@pytest.mark.parametrize("ended", [True, False])
def test_a_training_is_begun_anew_where_other_captures_or_settings_are_wanted(small, tmp_path, monkeypatch, ended):
    """Whether it had ended or was interrupted, which `train` by itself would refuse to go on with."""
    cell = Cell("oakink-like", "usthand", 0)
    monkeypatch.setattr(cells, "_measure", lambda capture, given: {n: MEASURED for n in given})
    trained, real = [], cells.train

    def trains(captures, *a, **k):
        trained.append(captures)
        real(captures, *a, **k)
        if not ended and len(trained) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(cells, "train", trains)
    if ended:
        run_cell(cell, tmp_path / "cache", tmp_path / "results")
    else:
        with pytest.raises(KeyboardInterrupt):
            run_cell(cell, tmp_path / "cache", tmp_path / "results")
    other = replace(SMALL, train_seeds=(SMALL.train_seeds[0] + 50,))
    monkeypatch.setattr(cells, "load_regime", lambda name: other)
    run_cell(cell, tmp_path / "cache", tmp_path / "results")
    assert len(trained) == 2 and trained[0] != trained[1]


def test_a_rival_that_is_adapted_starts_from_its_own_pretraining(small, tmp_path, monkeypatch):
    best, started = pretend_pretraining(tmp_path), []
    monkeypatch.setattr(
        cells,
        "train",
        lambda captures, run, config, progress, learner: (started.append(learner), (run / "last").mkdir(parents=True)),
    )
    seen, final = [], Reconstructed().final
    monkeypatch.setattr(methods, "reconstruct_hamuco", lambda capture, run, side: (seen.append(run), final)[1])
    monkeypatch.setattr(cells, "_measure", lambda capture, given: {n: MEASURED for n in given})
    run_cell(Cell("oakink-like", "hamuco-adapted", 1), tmp_path, tmp_path / "results")
    assert [learner.checkpoint for learner in started] == [best] and best.is_dir()
    assert set(seen) == {tmp_path / "runs" / f"oakink-like.heavy.hamuco-adapted.1.{cells.weights_digest()}"}


def test_only_methods_that_adapt_learn_the_test_captures_labels(small, tmp_path, monkeypatch):
    learned = []
    monkeypatch.setattr(
        cells, "train", lambda captures, run, *a, **k: (learned.append(captures), (run / "last").mkdir(parents=True))
    )
    pretend_pretraining(tmp_path)
    monkeypatch.setattr(methods, "reconstruct_all", lambda *a, **k: Reconstructed())
    monkeypatch.setattr(methods, "reconstruct_hamuco", lambda *a, **k: Reconstructed().final)
    monkeypatch.setattr(cells, "_measure", lambda capture, given: {n: MEASURED for n in given})
    tests = captures(SMALL, "test", "heavy", 4, tmp_path)
    for name, one in METHODS.items():
        if one.learner:
            learned.clear()
            run_cell(Cell("oakink-like", name), tmp_path, tmp_path / "results")
            assert (learned[0] == tests) == name.endswith("adapted") and (
                set(learned[0]) & set(tests) == set() or learned[0] == tests
            ), name


def test_fresh_captures_are_others_and_share_the_training(small, tmp_path, monkeypatch):
    """A method trained on the training captures is only measured on them; one that adapts learns theirs."""
    learned, measured = [], []
    monkeypatch.setattr(
        cells, "train", lambda captures, run, *a, **k: (learned.append(captures), (run / "last").mkdir(parents=True))
    )
    monkeypatch.setattr(methods, "reconstruct_all", lambda *a, **k: Reconstructed())
    monkeypatch.setattr(
        cells, "_measure", lambda capture, given: (measured.append(capture.path), {n: MEASURED for n in given})[1]
    )
    test, fresh = (captures(SMALL, split, "heavy", 4, tmp_path) for split in ("test", "fresh"))
    assert len(fresh) == 1 and not set(fresh) & set(test)
    for name in ("usthand", "adapted"):
        for tested_on in ("test", "fresh"):
            run_cell(Cell("oakink-like", name, tested_on=tested_on), tmp_path, tmp_path / "results")
    assert measured == [*test, *fresh] * 2
    assert learned == [captures(SMALL, "train", "heavy", 4, tmp_path), test, fresh]
    assert Cell("hanco-like", "fit", tested_on="fresh").name == "hanco-like.heavy.fresh.fit.0"


def test_at_the_published_sizes_terms_are_equal_too():
    ours, rival = (METHODS[name].paper for name in ("usthand", "hamuco"))
    assert (ours.model.backbone, ours.model.image_size, ours.crop.gate) == ("resnet34", 256, 0.0)
    assert ours.model == rival.model and ours.crop == rival.crop
    assert (ours.train.start, ours.train.steps) == (rival.train.start, rival.train.steps) == ("scratch", 75_000)
    assert (
        ours.train.clips * ours.train.clip_frames == rival.train.single_frames == 40 and rival.train.points_from == 1.0
    )


def test_cells_of_the_published_sizes_are_others_and_their_table_has_a_file_of_its_own(small, tmp_path, monkeypatch):
    assert Cell("hanco-like", "usthand", preset="paper").name == "hanco-like.heavy.paper.usthand.0"
    assert Cell("hanco-like", "fit", 2, preset="paper").settled() == Cell("hanco-like", "fit"), "no network, no preset"
    trained = []
    monkeypatch.setattr("usthand.experiments.bench.fill.check_device", lambda name: None)
    monkeypatch.setattr(
        cells,
        "train",
        lambda captures, run, config, *a: (
            trained.append((config.preset.model.backbone, config.device)),
            (run / "last").mkdir(parents=True),
        ),
    )
    monkeypatch.setattr(methods, "reconstruct_all", lambda *a, **k: Reconstructed())
    monkeypatch.setattr(methods, "reconstruct_hamuco", lambda *a, **k: Reconstructed().final)
    monkeypatch.setattr(cells, "_measure", lambda capture, given: {n: MEASURED for n in given})
    config = FillConfig(tmp_path / "cache", tmp_path / "results", (0,), preset="paper")
    text = fill("headline", replace(config, device="cuda:3"))
    assert trained == [("resnet34", "cuda:3")] * 6 and "| UST-Hand | 1.00 |" in text and MISSING not in text
    assert [path.name for path in (tmp_path / "results").glob("*.json")] == ["headline-gpu.json"]
    with pytest.raises(UsthandError, match="only the headline"):
        fill("labels", config)
    with pytest.raises(UsthandError, match="not compared at the published sizes"):
        run_cell(Cell("hanco-like", "adapted", preset="paper"), tmp_path / "cache", tmp_path / "results")


def test_a_cell_of_an_older_version_is_run_again_and_shown_till_then(tmp_path):
    cell = Cell("hanco-like", "usthand")
    fake_cell(tmp_path, cell, 2.0)
    path = tmp_path / "cells" / f"{cell.name}.json"
    data = json.loads(path.read_text())
    assert cells.is_whole(cell, tmp_path)
    del data["rows"]["network"]["mpvpe_mm"]
    path.write_text(json.dumps(data))
    assert not cells.is_whole(cell, tmp_path)
    table = as_json(make_table("headline", (0,)), tmp_path)
    assert (
        "mpvpe_mm" not in table["regimes"]["hanco-like"]["network"]
        and table["regimes"]["hanco-like"]["usthand"]["mpvpe_mm"]["mean"] == 2.0
    )
    line = next(
        line
        for line in markdown(table, labels_of(make_table("headline", (0,)))).splitlines()
        if "its network alone |  |" in line
    )
    assert line.split("|")[4].strip() == "2.00", "joints are there, the mesh is left blank"
    del data["rows"]["network"]
    path.write_text(json.dumps(data))
    assert (
        not cells.is_whole(cell, tmp_path)
        and as_json(make_table("headline", (0,)), tmp_path)["regimes"]["hanco-like"]["network"] is None
    )


def test_numbers_of_other_weights_are_missing(tmp_path, monkeypatch):
    """For every method that uses the package's weights; not for the others, and not at the published sizes."""
    old = [Cell("hanco-like", name) for name in METHODS] + [Cell("hanco-like", "usthand", preset="paper")]
    for cell in old:
        fake_cell(tmp_path, cell, 2.0)
    assert all(read_cell(cell, tmp_path) for cell in old)
    monkeypatch.setattr(cells, "weights_digest", lambda: "others")
    without = {"raw", "smooth", "fit", "usthand", *PEERS}
    assert {cell.method for cell in old if read_cell(cell, tmp_path)} == without
    assert read_cell(old[-1], tmp_path) and not read_cell(Cell("hanco-like", "usthand"), tmp_path)


def test_the_digest_follows_weights_and_settings(tmp_path):
    for name in (checkpoint.CONFIG, checkpoint.WEIGHTS):
        folder = tmp_path / name
        shutil.copytree(SHIPPED, folder)
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        assert checkpoint.weights_digest(folder) != checkpoint.weights_digest()


def test_an_interrupted_cell_goes_on(small, tmp_path, monkeypatch):
    """A failure after the training leaves it in the cache; the next try does not train again."""
    cell = Cell("oakink-like", "usthand", 0)
    monkeypatch.setattr(cells, "_measure", lambda *a: (_ for _ in ()).throw(RuntimeError("power cut")))
    with pytest.raises(RuntimeError, match="power cut"):
        run_cell(cell, tmp_path / "cache", tmp_path / "results")
    log = tmp_path / "cache" / "runs" / f"{cell.name}.{cell.weights}" / "metrics.jsonl"
    assert read_cell(cell, tmp_path / "results") is None and log.is_file()
    before, after, real = log.read_text(), [], cells.train
    monkeypatch.setattr(cells, "train", lambda *a, **k: (real(*a, **k), after.append(log.read_text())))
    monkeypatch.setattr(cells, "_measure", lambda capture, given: {n: MEASURED for n in given})
    run_cell(cell, tmp_path / "cache", tmp_path / "results")
    assert after == [] and log.read_text() == before, "not a step was taken again"


def test_a_pretrained_rival_is_used_as_it_is(small, tmp_path, monkeypatch):
    """Its run is never made by a cell, nor removed."""
    cell = Cell("oakink-like", "hamuco-pretrained", 3)
    with pytest.raises(UsthandError, match=r"usthand pretrain .*pretrained-hamuco --method hamuco"):
        run_cell(cell, tmp_path, tmp_path / "results")
    best, seen, final = pretend_pretraining(tmp_path), [], Reconstructed().final
    monkeypatch.setattr(methods, "reconstruct_hamuco", lambda capture, run, side: (seen.append(run), final)[1])
    monkeypatch.setattr(cells, "_measure", lambda capture, given: {n: MEASURED for n in given})
    rows = run_cell(cell, tmp_path, tmp_path / "results")
    assert set(rows) == {"hamuco-pretrained"} and set(seen) == {best.parent} and best.is_dir()
    assert read_cell(replace(cell, seed=0), tmp_path / "results") == rows, "no seed has a part in it"


def test_a_pretraining_that_started_from_other_weights_is_refused(small, tmp_path):
    pretend_pretraining(tmp_path, shipped="others")
    with pytest.raises(UsthandError, match="started from other weights"):
        run_cell(Cell("oakink-like", "hamuco-pretrained"), tmp_path, tmp_path / "results")


def test_a_cell_may_measure_uncertainty(small, tmp_path):
    """Under a name of its own, over the frames of the cells that measure errors, and with the same coverage."""
    errors = Cell("oakink-like", "raw", tested_on="fresh")
    cell = replace(errors, measures="uncertainty")
    assert cell.name == "oakink-like.heavy.fresh.uncertainty.raw.0" and cell.training == errors.training
    found, known = (run_cell(one, tmp_path, tmp_path / "results")["raw"] for one in (cell, errors))
    assert set(cells.COVARIANCE_KEYS) <= set(found) <= {*cells.UNCERTAINTY_KEYS, "frames"}
    assert found["coverage90"] == known["coverage90"] and found["frames"] == known["frames"]
    assert not set(cells.VERTEX_KEYS) & set(found), "plain triangulation says nothing of the surface"
    fit = run_cell(replace(cell, method="fit"), tmp_path, tmp_path / "results")["fit"]
    assert set(cells.VERTEX_KEYS) <= set(fit) and 0 < fit["vertex_coverage50"] <= fit["vertex_coverage90"] <= 1
    assert cells.is_whole(cell, tmp_path / "results")
    table = make_table("reliability")
    data = as_json(table, tmp_path / "results")
    assert data["regimes"]["oakink-like, heavy labels"]["raw"]["nll"]["mean"] == found["nll"]
    text = markdown(data, labels_of(table), table.columns)
    assert f"{found['coverage90']:.3f}" in text and MISSING in text
