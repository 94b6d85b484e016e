"""The soak: all four modules under load at the same time, see run.py."""
