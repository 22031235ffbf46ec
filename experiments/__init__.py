"""Commands: one experiment a file."""
