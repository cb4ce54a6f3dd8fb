"""Readers of other programs' 2D hands: each turns files into detections, not yet told apart."""
