"""Rubrics of a project: shipped ones, and the versions that people wrote after them."""
