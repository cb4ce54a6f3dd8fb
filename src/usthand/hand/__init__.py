"""The hand: its joints and bones, a differentiable skinned model, anatomical limits, files, and `Result`."""
