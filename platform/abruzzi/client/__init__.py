"""The SDK: what people and stage processes import. See abruzzi.client.client and abruzzi.client.stage."""

from abruzzi.client.client import Client

__all__ = ["Client"]
