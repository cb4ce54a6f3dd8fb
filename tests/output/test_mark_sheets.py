"""Sheets and page: what is drawn is where its pixels are, and what is clicked is in the file at the right position."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from support.chromium import chromium
from support.stand_in import exact_labels, make_capture, make_rig, moving_hand, result_of
from usthand.common.errors import UsthandError
from usthand.evaluation.marks import COLUMNS, FINGER_NAMES, load_marks
from usthand.hand.skeleton import FINGER_TIPS
from usthand.output import mark_sheets
from usthand.output.mark_patches import plan_views

ASKED = (1, 5)
GOOD_PX = 0.15
"""A white disc of 3 px in compressed footage, enlarged some ten times: its centre of brightness is good to this."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """White discs at the fingertips, on grey."""
    truth, rig = moving_hand(6), make_rig()
    capture = make_capture(tmp_path_factory.mktemp("clip"), truth, rig)
    return capture, plan_views(capture, result_of(truth), None, ASKED), exact_labels(truth, rig)


@pytest.fixture(scope="module")
def folder(scene, tmp_path_factory):
    capture, views, _ = scene
    return mark_sheets.write_mark_sheets(capture, views, tmp_path_factory.mktemp("out") / "marks").parent


def tip_px(labels, view, finger: str) -> np.ndarray:
    return labels.uv_px[view.frame, labels.cameras.index(view.camera), FINGER_TIPS[FINGER_NAMES.index(finger)]]


def is_apart(labels, view, finger: str) -> bool:
    """Whether no other disc reaches the surroundings in which a disc's centre is looked for."""
    tips = labels.uv_px[view.frame, labels.cameras.index(view.camera), list(FINGER_TIPS)]
    return np.sort(np.linalg.norm(tips - tip_px(labels, view, finger), axis=-1))[1] > 11


def bright_centre(image: np.ndarray, near: np.ndarray, radius: float) -> np.ndarray:
    """Centre of what is brighter than the grey of the footage, within a radius, in pixels of the image."""
    v, u = np.mgrid[: image.shape[0], : image.shape[1]]
    weight = np.clip(image.min(-1).astype(float) - 110, 0, None) * (np.hypot(u - near[0], v - near[1]) < radius)
    return np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum()


def test_the_folder_holds_a_page_a_table_and_a_sheet_an_image(folder, scene):
    _, views, _ = scene
    sheets = {path.name for path in (folder / "sheets").iterdir()}
    assert sheets == {f"frame-{frame:04d}-{camera}.png" for frame in ASKED for camera in "abc"}
    with (folder / "marks.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert tuple(head) == COLUMNS
    assert rows == [[str(v.frame), v.camera, "right", p.finger, "", "", ""] for v in views for p in v.patches]


def test_rulers_of_the_sheets_read_the_footages_pixels(scene):
    capture, views, labels = scene
    for view, image in list(mark_sheets._images(capture, views))[:2]:
        figure = mark_sheets._sheet(view, image)
        for panel in figure.axes:  # the ruler itself is yellow, and the numbers lie outside
            panel.grid(False)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[..., :3]
        for patch, panel in zip(view.patches, figure.axes, strict=False):
            assert panel.get_title().startswith(f"{patch.finger}: first pixel {patch.corner}, {patch.size_px} px wide")
            uv = tip_px(labels, view, patch.finger)
            x, y = panel.transData.transform(uv)
            zoom = panel.bbox.width / patch.size_px
            # Matplotlib counts from the lower edge of the picture, whose pixels here are centred at integers.
            found = bright_centre(drawn, np.array([x - 0.5, drawn.shape[0] - y - 0.5]), 6 * zoom)
            read = panel.transData.inverted().transform((found[0] + 0.5, drawn.shape[0] - found[1] - 0.5))
            assert np.abs(read - uv).max() < GOOD_PX or not is_apart(labels, view, patch.finger)
            ticks = panel.get_xticks()
            assert (ticks % 10 == 0).all() and panel.get_ylim()[0] > panel.get_ylim()[1]


class _Texts(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links = []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_no_network_and_tells_no_position(folder, scene):
    _, views, labels = scene
    page = (folder / "mark.html").read_text("utf-8")
    parser = _Texts()
    parser.feed(page)
    assert all(link.startswith("data:") for link in parser.links)
    script = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//[a-z]+\.|import\s*\(|fetch\(|XMLHttpRequest", script)
    for view in views:
        for patch in view.patches:
            assert not re.search(rf"\b{tip_px(labels, view, patch.finger)[0]:.1f}", script)


def begin(tab, folder, who: str) -> None:
    tab.go((folder / "mark.html").as_uri())
    left, top, width, height = tab.box("#who")
    tab.click(left + width / 2, top + height / 2)
    tab.write(who)
    tab.press("Enter")
    tab.wait("data.views.every((view) => view.picture.naturalWidth > 0)")


def saved(tab, path, rows: int) -> list[dict[str, str]]:
    """The file that the page's button downloads."""
    path.unlink(missing_ok=True)
    tab.press("s")
    for _ in range(200):
        tab.value("new Promise((yes) => setTimeout(yes, 25))")
        if path.is_file() and path.read_text().count("\n") == rows + 1:
            break
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_what_is_clicked_is_what_the_file_says(folder, scene, tmp_path):
    """A person who clicks on the white discs: the CSV has their true positions, whatever the window's size."""
    capture, views, labels = scene
    with chromium(tmp_path) as tab:
        tab.open("about:blank", 1240, 900)
        begin(tab, folder, "Anna")
        tips = [(view, patch) for view in views for patch in view.patches]
        for index, (view, patch) in enumerate(tips):
            if index == 7:
                tab.call(
                    "Emulation.setDeviceMetricsOverride", width=820, height=1100, deviceScaleFactor=1, mobile=False
                )
            assert patch.finger in tab.value("$('what').textContent")
            left, top, width, height = tab.box("#patch")
            tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)  # no cursor over the patch
            tab.picture(tmp_path / "page.png")
            drawn = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
            zoom = width / patch.size_px
            uv = tip_px(labels, view, patch.finger)
            near = np.array([left, top]) + (uv - patch.corner + 0.5) * zoom - 0.5
            found = bright_centre(drawn, near, 6 * zoom) + 0.5  # pixel centres to the window's coordinates
            assert abs(width - height) < 1
            tab.click(*found.tolist())
            tab.press(" ")
        assert "All are answered" in tab.value("$('told').textContent")
        rows = saved(tab, tmp_path / "marks-Anna.csv", len(tips))
        assert [(int(r["frame"]), r["camera"], r["finger"]) for r in rows] == [
            (v.frame, v.camera, p.finger) for v, p in tips
        ]
        marks = load_marks([tmp_path / "marks-Anna.csv"], capture)
        assert len(marks) == len(tips) and {mark.marker for mark in marks} == {"Anna"}
        for mark, (view, patch) in zip(marks, tips, strict=True):
            off = np.abs(np.array([mark.u_px, mark.v_px]) - tip_px(labels, view, patch.finger)).max()
            assert off < GOOD_PX or not is_apart(labels, view, patch.finger)
        assert sum(is_apart(labels, view, patch.finger) for view, patch in tips) > len(tips) / 2
        assert tab.complaints == []


@pytest.mark.slow
def test_answers_are_corrected_undone_kept_and_of_one_person(folder, scene, tmp_path):
    _, views, _ = scene
    with chromium(tmp_path) as tab:
        tab.open("about:blank")
        tab.go((folder / "mark.html").as_uri())
        tab.value("begin()")  # without a name
        assert "Write a name first" in tab.value("$('hint').textContent") and tab.value("$('work').hidden")
        begin(tab, folder, "B, of us")
        left, top, width, height = tab.box("#patch")

        def at(x: float, y: float) -> None:
            tab.click(left + x * width, top + y * height)

        at(0.25, 0.25), at(0.5, 0.75), tab.press("ArrowRight")  # the second click corrects the first
        tab.press("n"), tab.press("n"), tab.press("u")  # the third tip is open again
        at(0.1, 0.1), tab.press("ArrowLeft")
        tab.press("ArrowLeft")
        assert views[0].patches[0].finger in tab.value("$('what').textContent")
        first, second, third = saved(tab, tmp_path / "marks-B-of-us.csv", 3)
        patch = views[0].patches[0]
        assert float(first["u_px"]) == pytest.approx(patch.corner[0] - 0.5 + 0.5 * patch.size_px, abs=0.06)
        assert float(first["v_px"]) == pytest.approx(patch.corner[1] - 0.5 + 0.75 * patch.size_px, abs=0.06)
        assert first["marker"] == "B, of us" and second["u_px"] == second["v_px"] == ""
        assert third["finger"] == FINGER_NAMES[2] and third["u_px"]
        begin(tab, folder, "B, of us")  # the page was loaded anew: it goes on where it was left
        assert FINGER_NAMES[3] in tab.value("$('what').textContent")
        assert len(saved(tab, tmp_path / "marks-B-of-us.csv", 3)) == 3
        tab.press("+")
        grown = tab.value("radiusMm")
        tab.press("-"), tab.press("-")
        assert tab.value("radiusMm") < 7 < grown  # the round cursor's, mm
        begin(tab, folder, "C")  # who sees nothing of what B marked
        assert FINGER_NAMES[0] in tab.value("$('what').textContent")
        assert saved(tab, tmp_path / "marks-C.csv", 0) == []
        assert tab.complaints == []


@pytest.mark.slow
def test_a_patch_beside_the_tip_is_moved_by_hand(folder, scene, tmp_path):
    """A click into the picture of the hand centres the patch there; marks are in the image's pixels all the same."""
    _, views, _ = scene
    with chromium(tmp_path) as tab:
        tab.open("about:blank")
        begin(tab, folder, "A")
        view = views[0]
        left, top, width, height = tab.box("#hand")
        across, down = view.box[2] - view.box[0], view.box[3] - view.box[1]
        assert width / height == pytest.approx(across / down, rel=0.02)
        tab.click(left + 0.5 * width, top + 0.5 * height)
        left, top, width, height = tab.box("#patch")
        tab.click(left + 0.5 * width, top + 0.5 * height)
        (row,) = saved(tab, tmp_path / "marks-A.csv", 1)
        # The patch moves by whole pixels.
        assert float(row["u_px"]) == pytest.approx(view.box[0] - 0.5 + 0.5 * across, abs=0.6 + across / 600)
        assert float(row["v_px"]) == pytest.approx(view.box[1] - 0.5 + 0.5 * down, abs=0.6 + down / 600)
        moved = tab.value("tips[0].corner")
        assert moved != list(views[0].patches[0].corner)
        begin(tab, folder, "A")
        tab.press("ArrowLeft")  # back to the first tip, whose patch goes where its mark is
        assert np.abs(np.subtract(tab.value("tips[0].corner"), moved)).max() <= 1
        assert tab.complaints == []


def test_nothing_is_written_over(folder, scene):
    capture, views, _ = scene
    before = (folder / "marks.csv").read_bytes()
    with pytest.raises(UsthandError, match="exists: a folder of marks is never written over"):
        mark_sheets.write_mark_sheets(capture, views, folder)
    assert (folder / "marks.csv").read_bytes() == before
