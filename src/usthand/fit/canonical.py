"""One hand as everything after the labels works on it: a right hand in metres, and results back as they were captured.

A left hand is mirrored together with its cameras. A calibration without scale takes its unit from the hand's size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from usthand.capture.rig import Rig
from usthand.fit.kinematics import articulation
from usthand.fit.metric_scale import scaled_by_hand
from usthand.hand.io import right_hand
from usthand.hand.model import HandModel
from usthand.hand.result import Result
from usthand.labels.labels import Labels, Observations


@dataclass(frozen=True)
class CanonicalHand:
    """Cameras and labels of a right hand in metres."""

    rig: Rig
    """In metres; of the mirrored world if the hand is a left one."""
    labels: Labels
    """Of a right hand, in the order of the rig's cameras."""
    mirrored: bool
    """Whether the captured hand is a left one."""
    unit_m: float | None = None
    """Metres in the unit of a calibration without scale; None where the calibration is metric."""

    def as_captured(self, result: Result) -> Result:
        """A result of this right hand as one of the captured side, with the calibration's unit stated."""
        if self.unit_m is not None:
            result = replace(result, metric=False, unit_m=self.unit_m)
        return result.mirrored() if self.mirrored else result


def canonical_hand(
    rig: Rig,
    labels: Labels,
    hand: HandModel | None = None,
    observe: Callable[[Labels], Observations] = Observations.from_labels,
) -> CanonicalHand:
    """Mirror a left hand, and bring a rig without scale to metres. A right hand of a metric rig stays as it is.

    Args:
        rig: The cameras.
        labels: The hand's labels, in the order of the rig's cameras.
        hand: Its mean size gives the scale that a calibration lacks; the embedded one if none.
        observe: How much each label counts while the scale is found.
    """
    mirrored = labels.side == "left"
    if mirrored:
        rig, labels = rig.mirrored(), labels.mirrored(rig.widths.tolist())
    if rig.metric:
        return CanonicalHand(rig, labels, mirrored)
    scaled, unit_m = scaled_by_hand(rig, observe(labels), articulation(right_hand(hand)))
    return CanonicalHand(scaled, labels, mirrored, unit_m)
