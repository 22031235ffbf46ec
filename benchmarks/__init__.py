"""Speed against PyTorch and POT measured in the same run; `python -m benchmarks` runs them all."""
