"""Metric points and their min/max/last tiers."""
