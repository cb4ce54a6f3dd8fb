"""Where networks compute: the CPU, or a GPU that torch knows."""

from __future__ import annotations

import torch

from usthand.common.errors import UsthandError


def check_device(name: str) -> None:
    """Check that torch can compute on a device.

    Raises:
        UsthandError: If it cannot.
    """
    try:
        float(torch.zeros(1, dtype=torch.float64, device=name))  # cameras are float64
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsthandError(
            f"torch cannot compute on the device {name!r} ({reason})",
            "its name is mistyped, there is no such GPU, or torch was installed for the CPU alone",
            "leave --device out to use the CPU, or install torch for your GPU: see https://pytorch.org/get-started/locally",
        ) from None
