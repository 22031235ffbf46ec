"""Speed against PyTorch twins measured in the same run; `python -m benchmarks` runs them all."""
