"""Node health: which nodes answer, which are sick, and what follows for the attempts on them.

`signals` reads objects, `judge` decides (both pure), `listening` knows since when silence means something, `controller` does what follows.
"""
