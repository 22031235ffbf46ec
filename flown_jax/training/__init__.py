"""Training: steps, devices, checkpoints, stages, records."""
