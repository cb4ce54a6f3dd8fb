"""Detectors of hands in single images, and the labelling of a capture with them."""
