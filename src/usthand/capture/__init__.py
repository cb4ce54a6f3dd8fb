"""Captures: rigs and the calibrations they come from, videos and images frame by exact frame."""
