"""The training loop and its schedule."""
