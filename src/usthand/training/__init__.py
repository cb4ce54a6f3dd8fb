"""Training a network on labels: presets, losses, the loop, and what it leaves on disk.

`config` holds the settings; `objective` is the interface between a network and the loop; `losses` are pure functions;
`step` is one optimiser step; `loop` is the whole run (`train`); `checkpoint` and `log` are its files.
"""
