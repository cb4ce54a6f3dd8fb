"""The sequence fit: one hand over all frames and cameras, from 2D labels, without any training."""
