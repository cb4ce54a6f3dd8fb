"""Synthetic captures with exact truth: hands, rooms and cameras drawn by our own rasteriser."""
