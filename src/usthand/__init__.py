"""3D hands with uncertainty from calibrated multi-camera video, learned without 3D labels."""

__version__ = "0.1.0"
