"""From a trained network to hands with uncertainty.

`inference` runs a network over a footage; `network_results` gives its own results, frame by frame; `fusion` fits the
hand to the networks' distributions and the labels together; `reconstruct` is the whole way.
"""
