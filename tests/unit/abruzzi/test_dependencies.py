"""No dependency has put itself in the place of another."""

from __future__ import annotations

from importlib.metadata import distributions, version

import urllib3


def test_urllib3_is_the_one_that_is_locked() -> None:
    """urllib3-future overwrites it at the first start of Python, under minio, kubernetes and requests."""
    assert urllib3.__version__ == version("urllib3")
    assert "urllib3-future" not in {distribution.name for distribution in distributions()}
