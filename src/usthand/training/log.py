"""A training's log, `metrics.jsonl`: one JSON object a line; an interrupted run may have cut the last one short."""

from __future__ import annotations

import json
from pathlib import Path

from usthand.common.files import whole_file


def read_log(path: Path) -> list[dict]:
    """The rows up to the first that is not whole; none if there is no such file."""
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def cut_log(path: Path, step: int) -> None:
    """Keep the rows up to a step: a run that goes on from there logs the later ones again."""
    rows = [json.dumps(row) + "\n" for row in read_log(path) if row["step"] <= step]
    with whole_file(path) as partial:
        partial.write_text("".join(rows), encoding="utf-8")
