"""Pools: where ranks run."""
