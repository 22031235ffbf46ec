"""Weight autoencoders."""
