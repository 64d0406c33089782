"""Suites of questions with their scorers, by name and version."""
