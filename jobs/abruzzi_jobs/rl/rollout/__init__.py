"""Rollouts: which trajectories run (`scheduler`, pure), how one is played (`player`), an iteration's phase of them (`collect`), and what survives (`store`)."""
