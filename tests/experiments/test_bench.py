"""The evidence: fair splits, equal terms, cells that are run once, tables that say what is missing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from usthand.capture.capture import open_capture
from usthand.common.errors import UsthandError
from usthand.evaluation.truth import load_truth
from usthand.experiments.bench import cells, methods, regimes, tables
from usthand.experiments.bench.cells import KEYS, Cell, read_cell, run_cell
from usthand.experiments.bench.fill import fill
from usthand.experiments.bench.methods import METHODS, SCHEDULE, Method
from usthand.experiments.bench.regimes import captures, load_regime, regime_names
from usthand.experiments.bench.tables import (
    HEADLINE_METHODS,
    MISSING,
    as_json,
    labels_of,
    make_table,
    markdown,
    put_into,
)
from usthand.experiments.pretrain import FIRST_SEED, PretrainConfig
from usthand.geometry.cameras import Cameras, project
from usthand.labels.labels import load_labels, load_npz
from usthand.network.config import ModelConfig
from usthand.reconstruction.reconstruct import ReconstructConfig
from usthand.training import checkpoint
from usthand.training.checkpoint import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SMALL = dataclasses.replace(
    load_regime("oakink-like"),
    name="oakink-like",
    size=96,
    train_frames=10,
    test_frames=10,
    train_seeds=(5,),
    test_seeds=(6, 7),
    fresh_seeds=(8,),
)


MEASURED = dict.fromkeys(KEYS, 1.0) | {"frames": 2, "valid_fraction": 1.0}


@pytest.fixture
def small(monkeypatch):
    """Tiny captures and trainings in place of the real ones."""
    for module in (regimes, cells):
        monkeypatch.setattr(module, "load_regime", lambda name: replace(SMALL, name=name))
    model = ModelConfig(
        width=8, image_size=64, map_channels=16, graph_width=32, flow_hidden=16, couplings=2, point_width=32, blocks=1
    )
    for name in ("usthand", "hamuco"):
        preset = METHODS[name].preset
        preset = replace(preset, model=model, train=replace(preset.train, start="scratch", steps=3))
        monkeypatch.setitem(METHODS, name, replace(METHODS[name], preset=preset))


def pretrained(cache: Path, shipped: str | None = None) -> Path:
    """A rival's pretraining as a cell looks at it; started from the package's weights."""
    best = cache / "pretrained-hamuco" / "run" / "best"
    best.mkdir(parents=True)
    (best / "config.json").write_text(json.dumps({"shipped": shipped or cells.weights_digest()}))
    return best


# ---- splits and terms ----------------------------------------------------------------------------------------------


def test_no_seed_is_in_two_places():
    """Training, test and fresh captures, the regimes, the shipped weights' captures and the demos' (below 100) share no seed."""
    config = PretrainConfig(out=None)
    pretraining = set(range(FIRST_SEED, FIRST_SEED + config.captures))
    seen = pretraining | set(range(100))
    for name in regime_names():
        regime = load_regime(name)
        for seed in regime.train_seeds + regime.test_seeds + regime.fresh_seeds:
            assert seed not in seen
            seen.add(seed)


def test_regimes_are_the_promised_ones():
    assert regime_names() == ["dexycb-like", "hanco-like", "oakink-like"]
    facts = {name: (load_regime(name).views, load_regime(name).objects) for name in regime_names()}
    assert facts == {"hanco-like": (8, "none"), "dexycb-like": (8, "held"), "oakink-like": (4, "many")}
    with pytest.raises(UsthandError, match="no regime"):
        load_regime("freihand-like")


def test_trained_methods_have_equal_terms():
    """Same network sizes of the backbone, same start, same number of steps and of images a step; those that start from all
    of their pretrained weights among themselves."""
    trained = {name: m for name, m in METHODS.items() if m.learner}
    assert len(trained) > 10
    for name, one in trained.items():
        train, model = one.preset.train, one.preset.model
        assert (model.backbone, model.width, model.image_size) == ("resnet18", 24, 96)
        assert train.single_frames == SCHEDULE.single_frames
        if name.endswith("adapted"):
            assert train.steps == METHODS["adapted"].preset.train.steps and (
                train.start == "shipped" or one.pretraining
            )
        else:
            assert (train.start, train.steps, one.pretraining) == ("backbone", SCHEDULE.steps, None)
        assert train.view_dropout == SCHEDULE.view_dropout and train.label_dropout == SCHEDULE.label_dropout


def test_equal_terms_end_with_equal_terms(monkeypatch):
    """A method that starts from the backbone does not hear the shipped network; only the line that is called so does."""
    heard = []
    monkeypatch.setattr(
        methods, "reconstruct_all", lambda capture, run, side, *more: (heard.append((run, *more)), Both(1, 2, 3))[1]
    )
    Both = namedtuple("Both", "final network head")
    for one in METHODS.values():
        if "network" in one.gives:
            one.results(None, Path("run"), 0)
    assert len(heard) > 15 and all(run == Path("run") and not config.with_shipped for run, config in heard)
    heard.clear()
    assert METHODS["shipped"].results(None, None, 0) == {"shipped": 1, "shipped-network": 2, "shipped-head": 3}
    assert heard == [(SHIPPED,)]
    assert METHODS["adapted"].results(None, Path("run"), 4) == {"adapted": 1, "adapted-network": 2}
    assert heard[1:] == [(Path("run"), ReconstructConfig(seed=4))]


# ---- captures ------------------------------------------------------------------------------------------------------


def test_levels_and_views_share_the_images(tmp_path):
    exact = captures(SMALL, "test", "exact", 4, tmp_path)
    heavy = captures(SMALL, "test", "heavy", 4, tmp_path)
    fewer = captures(SMALL, "test", "heavy", 2, tmp_path)
    assert len(exact) == len(heavy) == len(fewer) == 2
    for one, two, three in zip(exact, heavy, fewer, strict=True):
        whole, noisy, part = open_capture(one), open_capture(two), open_capture(three)
        assert whole.rig.names == noisy.rig.names and part.rig.names == ("cam0", "cam2")
        for name in part.rig.names:
            assert (one / f"{name}.mp4").samefile(three / f"{name}.mp4")
        truth = load_truth(one, "right")
        cameras = Cameras(*(t.expand(10, *t.shape) for t in whole.rig.tensors()))
        uv = project(cameras, torch.from_numpy(truth.joints_world_m))[0].numpy()
        np.testing.assert_allclose(load_labels(whole, "right").uv_px, uv, atol=5e-3)
        labels, some = (load_npz(one.labels_path("right")) for one in (noisy, part))
        assert not np.allclose(labels.uv_px, uv, atol=1.0)
        np.testing.assert_array_equal(some.uv_px, labels.uv_px[:, [0, 2]])
        np.testing.assert_array_equal(load_truth(three, "right").visible, truth.visible[:, [0, 2]])
    stamps = [path.stat().st_mtime_ns for path in heavy]
    assert (
        captures(SMALL, "test", "heavy", 4, tmp_path) == heavy and [path.stat().st_mtime_ns for path in heavy] == stamps
    )


def test_a_changed_regime_is_another_capture(tmp_path):
    one = captures(SMALL, "train", "exact", 4, tmp_path)
    two = captures(replace(SMALL, objects="none"), "train", "exact", 4, tmp_path)
    assert one != two and one[0].is_dir() and two[0].is_dir()
    with pytest.raises(UsthandError, match="label level"):
        captures(SMALL, "train", "medium", 4, tmp_path)


# ---- cells ---------------------------------------------------------------------------------------------------------


def test_cells_are_run_once_and_kept(small, tmp_path, monkeypatch):
    cache, results = tmp_path / "cache", tmp_path / "results"
    for name in ("raw", "hamuco", "usthand"):
        rows = run_cell(Cell("oakink-like", name, 1), cache, results, quiet=True)
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
    monkeypatch.setattr(cells, "_measure", lambda capture, given, cache: {n: MEASURED for n in given})
    trained, real = [], cells.train
    monkeypatch.setattr(cells, "train", lambda *a, **k: (trained.append(a[2]), real(*a, **k)))
    for _ in range(2):
        run_cell(cell, tmp_path / "cache", tmp_path / "results", quiet=True)
    assert len(trained) == 1
    longer = METHODS["usthand"].preset
    longer = replace(longer, train=replace(longer.train, steps=longer.train.steps + 1))
    monkeypatch.setitem(METHODS, "usthand", replace(METHODS["usthand"], preset=longer))
    run_cell(cell, tmp_path / "cache", tmp_path / "results", quiet=True)
    assert [preset.train.steps for preset in trained] == [longer.train.steps - 1, longer.train.steps]


@pytest.mark.parametrize("ended", [True, False])
def test_a_training_is_begun_anew_where_other_captures_or_settings_are_wanted(small, tmp_path, monkeypatch, ended):
    """Whether it had ended or was interrupted, which `train` by itself would refuse to go on with."""
    cell = Cell("oakink-like", "usthand", 0)
    monkeypatch.setattr(cells, "_measure", lambda capture, given, cache: {n: MEASURED for n in given})
    trained, real = [], cells.train

    def trains(captures, *a, **k):
        trained.append(captures)
        real(captures, *a, **k)
        if not ended and len(trained) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(cells, "train", trains)
    if ended:
        run_cell(cell, tmp_path / "cache", tmp_path / "results", quiet=True)
    else:
        with pytest.raises(KeyboardInterrupt):
            run_cell(cell, tmp_path / "cache", tmp_path / "results", quiet=True)
    other = replace(SMALL, train_seeds=(SMALL.train_seeds[0] + 50,))
    monkeypatch.setattr(cells, "load_regime", lambda name: other)
    run_cell(cell, tmp_path / "cache", tmp_path / "results", quiet=True)
    assert len(trained) == 2 and trained[0] != trained[1]


def test_a_rival_that_is_adapted_starts_from_its_own_pretraining(small, tmp_path, monkeypatch):
    best, started = pretrained(tmp_path), []
    monkeypatch.setattr(
        cells,
        "train",
        lambda captures, run, preset, side, quiet, learner, device: (
            started.append(learner),
            (run / "last").mkdir(parents=True),
        ),
    )
    monkeypatch.setattr(methods, "reconstruct_hamuco", lambda capture, run, side: run)
    seen = []
    monkeypatch.setattr(
        cells, "_measure", lambda capture, given, cache: (seen.extend(given.values()), {n: MEASURED for n in given})[1]
    )
    run_cell(Cell("oakink-like", "hamuco-adapted", 1), tmp_path, tmp_path / "results", quiet=True)
    assert [learner.checkpoint for learner in started] == [best] and best.is_dir()
    assert set(seen) == {tmp_path / "runs" / f"oakink-like.heavy.hamuco-adapted.1.{cells.weights_digest()}"}


def test_whoever_adapts_learns_the_test_captures_labels_and_others_never_do(small, tmp_path, monkeypatch):
    learned = []
    monkeypatch.setattr(
        cells, "train", lambda captures, run, *a, **k: (learned.append(captures), (run / "last").mkdir(parents=True))
    )
    pretrained(tmp_path)
    for module in ("reconstruct_all", "reconstruct_hamuco"):
        monkeypatch.setattr(methods, module, lambda *a, **k: Both(1, 2, 3))
    Both = namedtuple("Both", "final network head")
    monkeypatch.setattr(cells, "_measure", lambda capture, given, cache: {n: MEASURED for n in given})
    tests = captures(SMALL, "test", "heavy", 4, tmp_path)
    for name, one in METHODS.items():
        if one.learner:
            learned.clear()
            run_cell(Cell("oakink-like", name), tmp_path, tmp_path / "results", quiet=True)
            assert (learned[0] == tests) == name.endswith("adapted") and (
                set(learned[0]) & set(tests) == set() or learned[0] == tests
            ), name


def test_fresh_captures_are_others_and_share_the_training(small, tmp_path, monkeypatch):
    """Who learned the training captures is only measured on them; who adapts to the footage learns theirs."""
    learned, measured = [], []
    monkeypatch.setattr(
        cells, "train", lambda captures, run, *a, **k: (learned.append(captures), (run / "last").mkdir(parents=True))
    )
    monkeypatch.setattr(methods, "reconstruct_all", lambda *a, **k: Both(1, 2, 3))
    Both = namedtuple("Both", "final network head")
    monkeypatch.setattr(
        cells,
        "_measure",
        lambda capture, given, cache: (measured.append(capture.path), {n: MEASURED for n in given})[1],
    )
    test, fresh = (captures(SMALL, split, "heavy", 4, tmp_path) for split in ("test", "fresh"))
    assert len(fresh) == 1 and not set(fresh) & set(test)
    for name in ("usthand", "adapted"):
        for tested_on in ("test", "fresh"):
            run_cell(Cell("oakink-like", name, tested_on=tested_on), tmp_path, tmp_path / "results", quiet=True)
    assert measured == [*test, *fresh] * 2
    assert learned == [captures(SMALL, "train", "heavy", 4, tmp_path), test, fresh]
    assert Cell("hanco-like", "fit", tested_on="fresh").name == "hanco-like.heavy.fresh.fit.0"


# ---- the published sizes -------------------------------------------------------------------------------------------


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
        lambda captures, run, preset, *a, device, **k: (
            trained.append((preset.model.backbone, device)),
            (run / "last").mkdir(parents=True),
        ),
    )
    for module in ("reconstruct_all", "reconstruct_hamuco"):
        monkeypatch.setattr(methods, module, lambda *a, **k: Both(1, 2, 3))
    Both = namedtuple("Both", "final network head")
    monkeypatch.setattr(cells, "_measure", lambda capture, given, cache: {n: MEASURED for n in given})
    text = fill("headline", tmp_path / "cache", tmp_path / "results", (0,), preset="paper", device="cuda:3")
    assert trained == [("resnet34", "cuda:3")] * 6 and "| UST-Hand | 1.00 |" in text and MISSING not in text
    assert [path.name for path in (tmp_path / "results").glob("*.json")] == ["headline-gpu.json"]
    with pytest.raises(UsthandError, match="only the headline"):
        fill("labels", tmp_path / "cache", tmp_path / "results", (0,), preset="paper")
    with pytest.raises(UsthandError, match="not compared at the published sizes"):
        run_cell(Cell("hanco-like", "adapted", preset="paper"), tmp_path / "cache", tmp_path / "results")


def test_a_cell_of_an_older_version_is_run_again_and_shown_till_then(tmp_path):
    cell = Cell("hanco-like", "usthand")
    fake(tmp_path, cell, 2.0)
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
    """Of every method that the package's weights have a part in; not of those without, and not at the published sizes."""
    old = [Cell("hanco-like", name) for name in METHODS] + [Cell("hanco-like", "usthand", preset="paper")]
    for cell in old:
        fake(tmp_path, cell, 2.0)
    assert all(read_cell(cell, tmp_path) for cell in old)
    monkeypatch.setattr(cells, "weights_digest", lambda: "others")
    assert {cell.method for cell in old if read_cell(cell, tmp_path)} == {"raw", "smooth", "fit", "usthand"}
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
        run_cell(cell, tmp_path / "cache", tmp_path / "results", quiet=True)
    log = tmp_path / "cache" / "runs" / f"{cell.name}.{cell.weights}" / "metrics.jsonl"
    assert read_cell(cell, tmp_path / "results") is None and log.is_file()
    before, after, real = log.read_text(), [], cells.train
    monkeypatch.setattr(cells, "train", lambda *a, **k: (real(*a, **k), after.append(log.read_text())))
    monkeypatch.setattr(cells, "_measure", lambda capture, given, cache: {n: MEASURED for n in given})
    run_cell(cell, tmp_path / "cache", tmp_path / "results", quiet=True)
    assert after == [] and log.read_text() == before, "not a step was taken again"


def test_a_pretrained_rival_is_used_as_it_is(small, tmp_path, monkeypatch):
    """Its run is never made by a cell, nor removed."""
    cell = Cell("oakink-like", "hamuco-pretrained", 3)
    with pytest.raises(UsthandError, match=r"usthand pretrain .*pretrained-hamuco --method hamuco"):
        run_cell(cell, tmp_path, tmp_path / "results", quiet=True)
    best, seen = pretrained(tmp_path), []
    monkeypatch.setattr(methods, "reconstruct_hamuco", lambda capture, run, side: seen.append(run))
    monkeypatch.setattr(cells, "_measure", lambda capture, given, cache: {n: MEASURED for n in given})
    rows = run_cell(cell, tmp_path, tmp_path / "results", quiet=True)
    assert set(rows) == {"hamuco-pretrained"} and set(seen) == {best.parent} and best.is_dir()
    assert read_cell(replace(cell, seed=0), tmp_path / "results") == rows, "no seed has a part in it"


def test_a_pretraining_that_started_from_other_weights_is_refused(small, tmp_path):
    pretrained(tmp_path, shipped="others")
    with pytest.raises(UsthandError, match="started from other weights"):
        run_cell(Cell("oakink-like", "hamuco-pretrained"), tmp_path, tmp_path / "results", quiet=True)


# ---- tables --------------------------------------------------------------------------------------------------------


def fake(results: Path, cell: Cell, value: float) -> None:
    path = results / "cells" / f"{cell.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {of: dict.fromkeys(KEYS, value) for of in METHODS[cell.method].gives}
    path.write_text(json.dumps({"rows": rows, "seconds": 2.0, "weights": cell.weights}))


def test_a_missing_cell_is_printed_as_missing(tmp_path):
    for seed, value in enumerate((3.0, 5.0)):
        fake(tmp_path, Cell("hanco-like", "usthand", seed), value)
    fake(tmp_path, Cell("hanco-like", "fit"), 6.0)
    data = as_json(make_table("headline", (0, 1, 2)), tmp_path)
    ours = data["regimes"]["hanco-like"]["usthand"]["mpvpe_mm"]
    assert ours == {"mean": 4.0, "std": 1.4142, "seeds": [3.0, 5.0]} and data["time_s"] == 6.0
    assert data["regimes"]["hanco-like"]["hamuco"] is None
    text = markdown(data, labels_of(make_table("headline", (0,))))
    assert (
        "| UST-Hand, from the backbone | 4.00 ± 1.41 (2 of 3) |" in text
        and "| HaMuCo-like, from the backbone | missing |" in text
    )
    assert "| fit | 6.00 |" in text


def test_a_page_may_hold_a_short_form(tmp_path):
    """Mesh errors alone, regimes side by side; only that one where only its markers are."""
    fake(tmp_path, Cell("hanco-like", "shipped"), 2.5)
    fake(tmp_path, Cell("oakink-like", "shipped"), 3.5)
    table = make_table("headline", (0, 1))
    page = put_into(
        "a\n<!-- table: headline, short -->\n<!-- end: headline, short -->\nb", table, as_json(table, tmp_path)
    )
    lines = page.splitlines()
    assert lines[2] == "| mesh error, mm | dexycb-like | hanco-like | oakink-like |" and lines[-1] == "b"
    assert "| **UST-Hand, shipped weights**, no training | missing | 2.50 | 3.50 |" in lines
    assert len(lines) == 6 + len(tables.IN_SHORT)


@pytest.mark.parametrize(
    "name",
    [
        "headline",
        "spread",
        "fresh",
        "targets",
        "detector",
        "labels",
        "views",
        "ablation",
        "parts",
        "window",
        "blocks",
        "hypotheses",
    ],
)
def test_every_table_is_made_of_known_methods(name):
    table = make_table(name, (0, 1))
    assert len({(row.group, row.label, row.of) for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert row.of in METHODS[row.cell.method].gives
    wanted = table.cells()
    assert len(set(wanted)) == len(wanted)
    assert [cell.seed for cell in wanted] == sorted(cell.seed for cell in wanted), "whole with one seed first"
    assert set(labels_of(table).values()) >= {row.label for row in table.rows}


def test_filling_stops_in_time_and_writes_into_a_document(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(
        "usthand.experiments.bench.fill.run_cell",
        lambda cell, cache, results, device: (ran.append(cell), fake(results, cell, 1.0)),
    )
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: window -->\nold\n<!-- end: window -->\nafter\n")
    fill("window", tmp_path, tmp_path, (0,), minutes=0.0)
    assert not ran
    text = fill("window", tmp_path, tmp_path, (0,), into=page)
    assert [cell.method for cell in ran] == ["window-1", "usthand", "window-5", "window-7"]
    assert page.read_text() == f"before\n<!-- table: window -->\n{text}\n<!-- end: window -->\nafter\n"
    assert (tmp_path / "window-cpu.json").is_file()
    with pytest.raises(UsthandError, match="no place"):
        put_into("nothing here", make_table("window", (0,)), {})


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*-cpu.json")), ids=lambda p: p.stem)
def test_committed_tables_are_made_from_committed_cells(path):
    """Nobody has typed a number: the JSON follows from the cells, and every page's table from the JSON."""
    name = path.stem.removesuffix("-cpu")
    data = json.loads(path.read_text())
    table = make_table(name)
    made = as_json(table, RESULTS)
    assert list(table.seeds) == data["seeds"], "the command as it stands gives the committed table"
    assert made["regimes"] == data["regimes"]
    for page in (ROOT / "README.md", ROOT / "docs" / "benchmarks.md"):
        text = page.read_text()
        if f"<!-- table: {name}" in text:
            assert put_into(text, table, data) == text, f"run `usthand bench {name} --no-run --into {page.name}`"


def test_all_methods_of_a_setting_are_measured_on_the_same_frames():
    """Who gave up the hard ones would look better."""
    frames: dict[tuple, set[int]] = {}
    for path in (RESULTS / "cells").glob("*.json"):
        data = json.loads(path.read_text())
        setting = (
            data["cell"]["regime"],
            data["cell"]["labels"],
            data["cell"]["views"],
            data["cell"].get("tested_on", "test"),
        )
        frames.setdefault(setting, set()).update(row["frames"] for row in data["rows"].values())
    assert len(frames) > 5 and all(len(counts) == 1 for counts in frames.values()), frames


def test_headline_holds_what_was_asked_for():
    assert set(HEADLINE_METHODS) >= {"usthand", "hamuco", "fit", "raw"}
    assert isinstance(methods.METHODS["hamuco"], Method) and tables.COLUMNS.keys() <= set(KEYS)
