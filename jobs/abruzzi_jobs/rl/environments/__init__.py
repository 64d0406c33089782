"""Environments: what the policy acts in. One interface; registry, adapters and the shipped gyms beside it."""
