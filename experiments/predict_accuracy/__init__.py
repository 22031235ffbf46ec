"""Accuracies of networks, read from their weights by several readers."""
