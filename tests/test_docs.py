"""The documentation: it builds without a warning, and one word has one meaning in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLAIN_WORDS = {
    r"mends?|mended|mending": "fix",
    r"foretells?|foretold|foretelling": "predict",
    r"witness(es)?|testif(y|ies)|hearken": "source, evidence",
    r"temper(s|ed|ing)?": "variance scale",
    r"(hand|mesh|it) laid on": "fitted to",
    r"hears? (no|the) labels?|heard after": "use",
}
"""Words of which the project once made a private dialect, and what to say instead."""
KEPT = ("`mend` (the fix)", '"mend"')  # a key of the JSON that `usthand check` prints: scripts read it


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "python-api" / "index.html").read_text()
    assert "joints_world_m" in page and "UsthandError" in page


@pytest.mark.parametrize("words", PLAIN_WORDS)
def test_plain_words(words):
    """In the sources, their messages and the pages; the changelog may name what went."""
    pattern = re.compile(rf"\b({words})\b", re.IGNORECASE)
    pages = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.html"), *(ROOT / "docs").rglob("*.md")]
    found = []
    for path in [*pages, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        text = path.read_text()
        for kept in KEPT:
            text = text.replace(kept, "")
        found += [f"{path.relative_to(ROOT)}: {match[0]!r}" for match in pattern.finditer(text)]
    assert not found, f"say {PLAIN_WORDS[words]!r} instead"


def test_the_readme_is_for_five_minutes():
    """At 240 words a minute, without its code."""
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(text.split()) < 1200
