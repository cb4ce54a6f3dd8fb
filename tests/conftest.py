"""Fixtures that several files of tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from jaxtyping import install_import_hook

from support import type_checks

# Shapes and types are checked at every call while tests run: before anything of the package is imported.
install_import_hook("usthand", f"{type_checks.__name__}.check")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the real data is not here")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: otherwise one process is left alone with them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
