"""What is wrong with a capture, found from its rig, its 2D labels and its videos' headers: `run.check_capture`.

One idea runs through all files. Two cameras that see the same joint must agree on it: the two rays meet. How far they
miss each other, in sizes of the hand (`evidence`), is the only yardstick; a fault is what, once fixed, cuts that number
by a large factor and down to what label noise explains. No threshold is in pixels, metres or frames of a certain camera.
"""
