"""Beartype as the tests use it: an int may stand where a float is wanted, as type checkers have it (PEP 484)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from beartype import BeartypeConf, beartype
from jaxtyping import config

check = beartype(conf=BeartypeConf(is_pep484_tower=True))


@contextmanager
def unchecked() -> Iterator[None]:
    """No checks in this block: for arrays that are wrong on purpose, which the package's own checks must refuse."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)
