"""A small shop and a fake Meta: `python -m demo`, or `make demo`."""
