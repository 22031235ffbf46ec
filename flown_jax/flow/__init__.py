"""Flow matching on arrays: paths, couplings, sources, losses, samplers."""
