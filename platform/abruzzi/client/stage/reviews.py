"""What people said of the rows of an input. A stage asks once and keeps the answer: later attempts must see the same."""

from __future__ import annotations

from abruzzi.client.stage.connection import connected
from abruzzi.client.stage.context import StageContext
from abruzzi.contracts.dataset import ReviewOut


def read_reviews(context: StageContext, input_name: str, *, retry_seconds: float = 120.0) -> list[ReviewOut]:
    """Of all rows of an input, in the order of their ids. None where no platform is named.

    Raises AbruzziError `unreachable` where the platform does not answer in time: what people rejected must not slip in.
    """
    path = f"attempts/{context.spec.attempt_id}/reviews"
    with connected(context, retry_seconds=retry_seconds) as platform:
        if platform is None:
            return []
        return list(platform.pages(ReviewOut, path, digest=context.spec.inputs[input_name].digest))
