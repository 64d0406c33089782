"""Synthesis: tools real and synthetic, the world in which they run, and (to come) agents, tasks and trajectories over them."""
