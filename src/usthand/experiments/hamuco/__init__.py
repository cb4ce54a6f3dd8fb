"""Other methods on our data interface, trained on the same captures by the same loop, for fair comparison."""
