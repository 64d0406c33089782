"""What can be wrong with a test cluster: the machine lacks something, or a part did not come up."""

from __future__ import annotations


class ClusterError(Exception):
    """Says which part, what it said last, and what to do."""


class CannotRunHere(ClusterError):
    """The machine can't hold a cluster at all; the message names everything that is missing and where it comes from."""
