"""Cameras, lenses, projection, triangulation and rotations as pure functions of tensors."""
