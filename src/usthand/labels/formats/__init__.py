"""Readers of other programs' 2D hands: each turns files into detections, before anybody knows which hand is which."""
