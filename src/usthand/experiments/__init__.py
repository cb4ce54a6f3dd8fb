"""The project's own experiments: the demo, the pretraining of the shipped weights, the benchmarks and their rival."""
