"""Immutable outputs of stages and their lineage."""
