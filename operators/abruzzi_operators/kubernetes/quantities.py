"""Quantities as Kubernetes writes them."""

from __future__ import annotations

from kubernetes.utils.quantity import parse_quantity


def amount(quantity: str | int | float) -> float:
    """`500m` CPUs are 0.5, `2Gi` bytes 2147483648. Raises ValueError."""
    return float(parse_quantity(quantity))
