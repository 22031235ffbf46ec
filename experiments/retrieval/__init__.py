"""Whole networks for a data set that is shown, and starts for fine-tuning (paper, section 3.1)."""
