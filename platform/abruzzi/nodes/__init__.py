"""Nodes: the machines that ranks run on, and how they are."""
