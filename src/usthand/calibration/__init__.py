"""Calibrations of other programs, read as rigs: `usthand.calibration.read.read_calibration`. One file a format or family."""
