"""Measurements of Headgate against bare yardsticks, as ratios in one run: `python -m benchmarks`."""
