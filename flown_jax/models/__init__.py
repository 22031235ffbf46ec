"""Base models: the networks whose weights are generated, and their backbones."""
