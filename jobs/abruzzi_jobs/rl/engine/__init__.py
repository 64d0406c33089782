"""Inference engines for rollouts, behind one protocol."""
