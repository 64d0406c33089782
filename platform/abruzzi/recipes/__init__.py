"""Versioned recipes."""
