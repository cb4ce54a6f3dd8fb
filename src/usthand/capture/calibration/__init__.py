"""Calibrations of other programs, read as rigs: `usthand.capture.calibration.read.read_calibration`. One file a format or family."""
