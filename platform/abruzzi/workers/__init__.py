"""Celery side work."""
