"""The pieces of `scripts/gpu_day.py`, the queue that runs them, and what travels to and from the machine with the GPU."""
