"""Beartype as the tests use it: an int may stand where a float is wanted, as type checkers have it (PEP 484)."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
