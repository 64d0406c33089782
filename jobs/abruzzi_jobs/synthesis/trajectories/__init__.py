"""Trajectories: a user and an agent talk, the agent's calls are executed for real or in a simulated world, many conversations at a time.

One conversation depends on its task, its seed and what the endpoints answer, on nothing else: so it can be played anywhere, and again from its row.
"""
