"""Calibrations of other programs, read as rigs; one file for each format or family of formats."""
