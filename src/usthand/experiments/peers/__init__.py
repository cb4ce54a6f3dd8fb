"""Other programs that place hand joints from several cameras, run on the labels that ours gets.

`exchange` (what goes to them and comes back) -> `athena`, `anipose`, `pose2sim`, `eks` (each one's own files) ->
`environments` (their virtual environments) -> `run` (one program on one capture) -> `measure` (its numbers). None of
them is imported: `worker` runs in the environment of each, as they are released, and does nothing but call them.
"""
