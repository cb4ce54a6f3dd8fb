"""What is wrong with a capture, found from its rig, its 2D labels and its videos' headers: `check.check_capture`.

One idea runs through all files. Two cameras that see the same joint must agree on it: the two rays meet. The distance
by which they miss each other, in sizes of the hand (`agreement`), is the only yardstick. A fault is reported if fixing
it cuts that number by a large factor, down to what label noise explains. No threshold is in pixels, metres or frames of
one camera.

The order of work (`check`): the videos' headers and the amount of labels (`headers`); gross faults of cameras and
labels (`candidate_faults`, `search`); time (`ray_tracks`, `timing`, `time_faults`), moved cameras and lenses
(`camera_faults`), chosen in `fixing`; then the hand itself (`hand_faults`, `hand_checks`). `findings` puts faults into
words, `write` puts them out.
"""
