"""Detectors of hands in single images."""
