"""The hand: a differentiable skinned model, anatomical limits, files, and the script that makes our own hand."""
