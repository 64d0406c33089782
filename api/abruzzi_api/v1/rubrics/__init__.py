"""Routes of rubrics."""
