"""Speed against twins measured in the same run."""
