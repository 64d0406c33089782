"""Suites, run: many items at a time, resumed where they were, counted with intervals."""
