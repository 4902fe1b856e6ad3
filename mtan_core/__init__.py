"""The method: pools, masks, ladders, heads, loss weightings, sampling, the training step and loop, checkpoints."""
