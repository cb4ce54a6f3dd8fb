"""A training's log: one JSON object a line (`metrics.jsonl`), which an interrupted run may have left cut short."""

from __future__ import annotations

import json
from pathlib import Path


def read_log(path: Path) -> list[dict]:
    """Its lines up to the first that is not whole; none if there is no such file."""
    lines = []
    for line in Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def cut_log(path: Path, step: int) -> None:
    """Keep the whole lines up to a step: a run that goes on from there logs what comes after it again."""
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in read_log(path) if row["step"] <= step), encoding="utf-8")
    part.replace(path)
