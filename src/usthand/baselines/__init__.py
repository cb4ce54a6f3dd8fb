"""Other methods on our data interface, trained on the same batches, for fair comparison."""
