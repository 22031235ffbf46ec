"""Commands: a folder each; what they share lies beside the folders."""
