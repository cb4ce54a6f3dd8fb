"""Files of marks: every way in which people save them, and every ordinary mistake in one sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from support.marked import write_marks
from support.stand_in import make_capture, make_rig, moving_hand
from usthand.common.errors import UsthandError
from usthand.evaluation.marks import COLUMNS, Mark, load_marks, marker_agreement

HEAD = ",".join(COLUMNS)
MARKS = [Mark(0, "a", "right", "index", "A", 320.25, 200.5), Mark(2, "c", "left", "thumb", "A", -0.5, 479.5)]


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    return make_capture(tmp_path_factory.mktemp("marks"), moving_hand(3), make_rig())


def test_marks_come_back_as_they_were_written(capture, tmp_path):
    assert load_marks([write_marks(tmp_path / "a.csv", MARKS)], capture) == MARKS


@pytest.mark.parametrize(
    ("encoding", "delimiter", "comma", "ending"),
    [
        ("utf-8-sig", ",", ".", "\n"),
        ("utf-8", ";", ",", "\r\n"),
        ("utf-8-sig", "\t", ",", "\r"),
        ("utf-8", ";", ".", "\n"),
    ],
)
def test_files_of_spreadsheets_are_read(capture, tmp_path, encoding, delimiter, comma, ending):
    """A byte-order mark, semicolons or tabs, decimal commas, other line ends, empty rows and columns at the end."""
    lines = [delimiter.join([*COLUMNS, "note", ""])]
    for mark in MARKS:
        cells = [str(getattr(mark, column)) for column in COLUMNS]
        cells[4:6] = [cell.replace(".", comma) for cell in cells[4:6]]
        lines += [delimiter.join([*cells, "", ""]), delimiter * (len(COLUMNS) + 1)]
    (tmp_path / "a.csv").write_bytes(ending.join([*lines, ""]).encode(encoding))
    assert load_marks([tmp_path / "a.csv"], capture) == MARKS


def test_rows_without_a_position_are_not_visible_and_a_file_names_its_marker(capture, tmp_path):
    (tmp_path / "anna.csv").write_text("u_px,v_px,finger,side,camera,frame\n,,ring,right,a,0\n10,20,ring,right,b,0\n")
    assert load_marks([tmp_path / "anna.csv"], capture) == [Mark(0, "b", "right", "ring", "anna", 10.0, 20.0)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1, has no column frame"),
        ("frame,camera,u,v\n", "line 1, has no column side"),
        (f"{HEAD}\n", "there is no mark in .*a.csv: no row"),
        (f"{HEAD}\n0,a,right,index,,,A\n", "there is no mark in .*a.csv: no row"),
        (f"{HEAD}\n3,a,right,index,1,1,A\n", "line 2, has frame '3', .* has frames 0 to 2"),
        (f"{HEAD}\n-1,a,right,index,1,1,A\n", "line 2, has frame '-1'"),
        (f"{HEAD}\n1.0,a,right,index,1,1,A\n", "line 2, has frame '1.0'"),
        (f"{HEAD}\n0,d,right,index,1,1,A\n", "line 2, has the camera 'd': the cameras of .* are a, b, c"),
        (f"{HEAD}\n0,a,Right,index,1,1,A\n", "line 2, has the side 'Right'"),
        (f"{HEAD}\n0,a,right,pinky,1,1,A\n", "line 2, has the finger 'pinky'"),
        (f"{HEAD}\n0,a,right,index,1,,A\n", "line 2, has the position ''"),
        (f"{HEAD}\n0,a,right,index,1,nan,A\n", "line 2, has the position 'nan'"),
        (f"{HEAD}\n0,a,right,index,1.0.0,1,A\n", "line 2, has the position '1.0.0'"),
        (
            f"{HEAD}\n0,a,right,index,640,100,A\n",
            r"line 2, has \(640, 100\), outside a's image of 640x480 px: .* another size",
        ),
        (f"{HEAD}\n0,a,right,index,100,1,200,5,A\n", "line 2, has 9 fields where the first line has 7: decimal commas"),
        (f"{HEAD}\n0,a,right,index\n", "line 2, has 4 fields"),
        (
            f"{HEAD}\n0,a,right,index,1,1,A\n\n0,a,right,index,2,2,A\n",
            "line 4, marks the index tip of frame 0 in a by 'A' again",
        ),
    ],
)
def test_a_mistake_is_told_in_one_sentence(capture, tmp_path, text, told):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UsthandError, match=told):
        load_marks([tmp_path / "a.csv"], capture)


def test_what_is_no_table_is_refused(capture, tmp_path):
    with pytest.raises(UsthandError, match="there is no file"):
        load_marks([tmp_path / "none.csv"], capture)
    for name, content in (("a.xlsx", b"PK\x03\x04\x00\xff"), ("b.csv", HEAD.encode("utf-16"))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsthandError, match="no CSV file in UTF-8"):
            load_marks([tmp_path / name], capture)


def test_one_name_for_two_people_is_noticed(capture, tmp_path):
    paths = [write_marks(tmp_path / f"{name}.csv", MARKS) for name in ("one", "two")]
    with pytest.raises(UsthandError, match=r"two\.csv, line 2, .* by 'A' again: the file was given twice, or"):
        load_marks(paths, capture)


def test_agreement_is_the_distance_of_two_peoples_marks():
    """Differences of lengths 1, 2, 3, 4 and 5 px; two marks that only one of them made say nothing."""
    rng = np.random.default_rng(0)
    first = [Mark(t, "a", "right", "index", "A", *rng.uniform(0, 400, 2).tolist()) for t in range(7)]
    angle = rng.uniform(0, 6, 5)
    second = [
        replace(mark, marker="B", u_px=mark.u_px + (t + 1) * np.cos(a), v_px=mark.v_px + (t + 1) * np.sin(a))
        for t, (mark, a) in enumerate(zip(first, angle, strict=False))
    ]
    found = marker_agreement([*first, *second])
    assert found.markers == ("A", "B") and found.both == 5
    assert found.median_px == pytest.approx(3.0) and found.p90_px == pytest.approx(4.6)
    alone = marker_agreement(first)
    assert alone.both == 0 and alone.median_px is None and alone.p90_px is None
