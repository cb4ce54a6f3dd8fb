"""How near to reality a scene is drawn; each step by itself, so that what it brings can be measured."""

from __future__ import annotations

from dataclasses import dataclass

from usthand.common.errors import UsthandError


@dataclass(frozen=True)
class Looks:
    """Which steps towards reality are taken. Each has a random stream of its own and leaves the others' draws alone."""

    camera: bool = False
    """Motion blur, rolling shutter, focus, processing and codecs of real webcams; see `camera_effects`."""
    skin: bool = False
    """Smoother skin, hair, freckles, and what people wear on hands; see `worn`."""
    room: bool = False
    """Light and backgrounds of real places; see `surroundings`."""
    aside: bool = False
    """Those places that are kept aside for tests."""


# `aside` is `real` in places that no training sees.
LEVELS = {
    "plain": Looks(),
    "camera": Looks(camera=True),
    "skin": Looks(skin=True),
    "room": Looks(room=True),
    "real": Looks(camera=True, skin=True, room=True),
    "aside": Looks(camera=True, skin=True, room=True, aside=True),
}


def looks_of(level: str) -> Looks:
    """The steps of a level.

    Raises:
        UsthandError: If there is no such level.
    """
    if level not in LEVELS:
        fact = f"no level of looks is called {level!r}"
        raise UsthandError(fact, "a typing error", f"choose one of {', '.join(LEVELS)}")
    return LEVELS[level]
