"""Runs, stages and attempts."""
