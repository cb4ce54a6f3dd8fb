"""The generator of the hand model that the package ships; `python -m embedded_hand [OUT.npz]` in `tools` runs it."""
