from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import av
import numpy as np
import pytest

from support.stand_in import make_capture, make_rig, moving_hand, result_of, tube_faces
from usthand.common.errors import UsthandError
from usthand.evaluation import glossary as measures
from usthand.evaluation import metrics
from usthand.output import figures
from usthand.output.film import film_of, film_window
from usthand.output.report import Report, read_history, write_report

FRAMES, FPS = 24, 30.0


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    rng = np.random.default_rng(0)
    truth = moving_hand(FRAMES)
    capture = make_capture(tmp_path_factory.mktemp("capture"), truth, make_rig(), FPS)

    def guess(size_mm):
        error = rng.normal(size=(FRAMES, 21, 3)) * size_mm * 1e-3
        return result_of(
            truth,
            truth.joints_world_m + error,
            truth.vertices_world_m + error[:, :1],
            joints_cov_m2=np.tile(np.eye(3) * (size_mm * 1e-3) ** 2, (FRAMES, 21, 1, 1)),
            faces=tube_faces(),
        )

    results = {"raw": replace(guess(8.0), valid=np.arange(FRAMES) != 3), "fit": guess(4.0), "usthand": guess(3.0)}
    rows = {name: metrics.evaluate_truth(r, truth, fps=FPS) for name, r in results.items()}
    history = [{"step": 10 * i, "total": 3.0 / (i + 1), "held_out_px": 9.0 / (i + 1)} for i in range(5)]
    confidence = rng.random(200)
    return Report(rows, capture, results, truth, history, (confidence, 5 * (1 - confidence)), {"Cameras": "3 & <more>"})


@pytest.fixture(scope="module")
def page(report, tmp_path_factory) -> str:
    return write_report(tmp_path_factory.mktemp("report") / "deep" / "report.html", report).read_text("utf-8")


class _Balance(HTMLParser):
    """Collects text and checks that every element that is opened is closed, in order."""

    VOID = frozenset({"meta", "br", "img", "source", "use", "path", "rect", "stop"})

    def __init__(self):
        super().__init__()
        self.stack, self.text, self.wrong = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID and (not self.stack or self.stack.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("style", "script"):
            self.text.append(data)


def test_page_is_whole_and_needs_nothing_else(page):
    parser = _Balance()
    parser.feed(page)
    assert not parser.wrong and not parser.stack
    links = re.findall(r'(?:src|href|poster|url)\s*[=(]\s*["\']?([^"\') >]+)', page)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    text = " ".join(parser.text)
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b|\$[a-z]", text, re.IGNORECASE)
    for words in (
        "Watch it",
        "How far from the truth",
        "Does it know when it is wrong?",
        "Where and when it errs",
        "What the training did",
        "What this does not show",
        "3 & <more>",
    ):
        assert words in text
    assert "3 & <more>" not in page  # it is escaped


def test_every_figure_is_svg_with_labelled_axes_in_the_pages_ink(page):
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 7
    for drawing in drawings:
        head = ElementTree.fromstring(drawing).attrib
        assert "viewBox" in head and "width" not in head and "height" not in head
        assert "currentColor" in drawing and "#000000" not in drawing.lower()
        assert re.search(r"\((mm|px|%|no unit|s|0 to 1)\)", drawing)


def test_film_is_a_playable_video(page):
    data = re.search(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", page)[1]
    film = base64.b64decode(data)
    import io

    with av.open(io.BytesIO(film)) as video:
        stream = video.streams.video[0]
        assert stream.codec_context.name == "h264" and (stream.width, stream.height) == (3 * 256, 2 * 256)
        assert sum(1 for _ in video.decode(video=0)) == FRAMES
    assert base64.b64decode(re.search(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)[1])[:2] == b"\xff\xd8"


def test_numbers_of_the_table_are_those_given(page, report):
    for row in report.rows.values():
        assert f">{row['mpjpe_mm']:.2f}</td>" in page
        assert f">{100 * row['coverage90']:.1f}</td>" in page


def test_headline_tells_the_change_and_does_not_flatter():
    rows = {"raw": {"mpvpe_mm": 10.0}, "fit": {"mpvpe_mm": 5.0}, "usthand": {"mpvpe_mm": 4.0}}
    text = measures.headline(rows)
    assert "4.0 mm" in text and "20 % closer than the sequence fit" in text and "60 % closer than plain" in text
    rows["usthand"]["mpvpe_mm"] = 6.0
    assert "20 % farther than the sequence fit" in measures.headline(rows)
    rows["usthand"]["mpvpe_mm"] = 5.01
    assert "as near as the sequence fit" in measures.headline(rows)
    rows["usthand"]["mpvpe_mm"] = 50.0
    assert "10.0 times as far as the sequence fit" in measures.headline(rows)
    rows["usthand"]["mpvpe_mm"] = 5.01
    rows["raw"] = {"mpvpe_mm": None, "mpjpe_mm": 9.0}  # no mesh: then the joints are what all can be compared by
    rows["fit"]["mpjpe_mm"], rows["usthand"]["mpjpe_mm"] = 5.0, 4.5
    assert "joints lie 4.5 mm" in measures.headline(rows) and "50 % closer than plain" in measures.headline(rows)
    assert "px from the labels of a camera it never saw" in measures.headline({"usthand": {"leave_out_median_px": 4.0}})
    assert measures.headline({"usthand": {}}).startswith("Hands with their uncertainty")


def test_best_is_judged_in_the_right_direction():
    by_key = {m.key: m for m in measures.MEASURES}
    rows = {"a": {"mpjpe_mm": 3.001, "f5": 0.9, "coverage90": 0.5}, "b": {"mpjpe_mm": 3.002, "f5": 0.8}, "c": {}}
    assert measures.best_rows(by_key["mpjpe_mm"], rows) == {"a", "b"}  # alike as shown
    assert measures.best_rows(by_key["f5"], rows) == {"a"}
    assert measures.best_rows(by_key["coverage90"], rows) == set()


def test_every_metric_is_explained(report):
    numbers = set(report.rows["fit"]) - {"frames"}
    assert numbers <= {m.key for m in measures.MEASURES}


def test_report_without_truth_and_footage(tmp_path):
    rows = {
        "raw": {"leave_out_median_px": 7.0, "leave_out_p90_px": 18.0, "palm_spread_mm": 5.0},
        "usthand": {"leave_out_median_px": 5.0, "leave_out_p90_px": 12.0, "palm_spread_mm": 0.0},
    }
    text = write_report(tmp_path / "r.html", Report(rows, limitations=["One clip only."])).read_text("utf-8")
    assert "29\u00a0% closer than plain triangulation" in text and "One clip only." in text
    assert "change of palm bones" not in text  # a hand model's do not change, so there is nothing to say
    assert "<video" not in text and "error (px)" in text and "Watch it" not in text


def test_uncertainty_of_the_surface_is_shown_where_there_is_one(report, page, tmp_path):
    """2 mm and, after a gap, 5 mm; without any, the page says so."""
    assert "How certain it is" not in page and "This result has no uncertainty of the surface" in page
    own, std = report.results["usthand"], np.where(np.arange(FRAMES) < 10, 2e-3, 5e-3)
    cov = np.eye(3) * std[:, None, None, None] ** 2 * np.ones((FRAMES, own.vertices_world_m.shape[1], 1, 1))
    valid = np.arange(FRAMES) != 10
    certain = replace(own, vertices_cov_m2=cov.astype(np.float32), valid=valid)
    shown = replace(report, results={**report.results, "usthand": certain})
    text = write_report(tmp_path / "r.html", shown).read_text("utf-8")
    assert "How certain it is" in text and "This result has no uncertainty of the surface" not in text
    assert "linear-gradient" in text and "linear-gradient" not in page
    section = text[text.index("How certain it is") : text.index("How far from the truth")]
    assert "UST-Hand" in section and "Plain triangulation" not in section and "std of the surface (mm)" in section
    parser = _Balance()
    parser.feed(text)
    assert not parser.wrong and not parser.stack


def test_a_line_is_broken_where_frames_are_missing():
    seconds, values = figures._with_gaps(np.array([0, 1, 4, 5]), 2.0, np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_array_equal(seconds, [0.0, 0.5, np.nan, 2.0, 2.5])
    np.testing.assert_array_equal(values, [1.0, 2.0, np.nan, 3.0, 4.0])


def test_nothing_is_written_over(report, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(UsthandError, match="is there already"):
        write_report(path, report)
    assert path.read_text() == "mine"
    write_report(path, Report({"usthand": {"mpjpe_mm": 1.0}}), overwrite=True)
    assert path.read_text() != "mine"


def test_film_shows_the_liveliest_valid_stretch():
    truth = moving_hand(60)
    joints = truth.joints_world_m.copy()
    joints[:40] = joints[:1]  # still until frame 40
    result = result_of(truth, joints)
    window = film_window(result, 15)
    assert len(window) == 15 and window[0] >= 35
    assert film_window(replace(result, valid=np.arange(60) < 20), 15)[-1] < 20
    assert film_window(result, 1000) == range(0, 60)


def test_film_counts_its_frames(report):
    seen = []
    short = replace(report.results["fit"], valid=np.ones(FRAMES, bool))
    film_of(report.capture, short, ["b"], progress=lambda done, total, task="", note="": seen.append((done, total)))
    assert seen == [(i + 1, FRAMES) for i in range(FRAMES)]


def test_history_survives_an_interrupted_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "total": 2.0}\n{"step": 2, "tot')
    assert read_history(path) == [{"step": 1, "total": 2.0}]
    assert read_history(None) == []


def test_curves_with_negative_losses_are_drawn():
    assert "flow: likelihood" in figures.training_curves([{"step": i, "nll": 1.0 - i, "total": 2.0} for i in range(4)])


def test_figures_are_the_same_every_time():
    errors = {"fit": np.ones((3, 21)), "other": np.full((3, 21), 2.0)}
    assert figures.per_joint(errors) == figures.per_joint(errors)
    assert figures.colour_of("other", ["fit", "other"]) != figures.colour_of("fit", ["fit", "other"])
