"""Environments: what there is to train in, and what the project's stages have made of it."""
