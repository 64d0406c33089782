"""The vocabulary: pure pydantic, imported by everything."""
