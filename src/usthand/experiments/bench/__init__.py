"""The benchmarks: regimes of captures, methods on equal terms, cells that are run once and kept, tables made from them.

`regimes` (what is captured) -> `methods` (what is compared) -> `cells` (one regime, label level, method and seed: run
or read) -> `tables` (JSON and Markdown from cells; a missing cell is printed as missing) -> `fill` (a table, run and
written). `changed_network` takes parts out of the shipped network.
"""
