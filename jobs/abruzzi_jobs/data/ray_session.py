"""The Ray cluster that this process is a job of."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError

logger = logging.getLogger(__name__)

ENV_ADDRESS = "RAY_ADDRESS"
RETRIES = 5
"""Of a task whose node is lost; what it raises itself is not tried again."""
_OBJECT_STORE_BYTES = 256 << 20
_STARTS = 4
_ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_register_timeout_seconds": "600",
}
"""No word to anybody, and patience on a busy machine."""


@contextmanager
def ray_session() -> Iterator[Any]:
    """The package `ray`, connected (RAY_ADDRESS). Raises AbruzziError where the image does not have it."""
    ray = _imported()
    ray.init(address=os.environ[ENV_ADDRESS], log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def ray_here(folder: Path, cpus: int) -> Iterator[Any]:
    """As ray_session; where there is no cluster, one of this machine's, of this process alone, behind a token that is kept in `folder`.

    It ends with the process, however that ends. Its sockets have short paths of their own: those below `folder` may be too long for the system."""
    if ENV_ADDRESS in os.environ:
        with ray_session() as ray:
            yield ray
        return
    token = folder / "ray-token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ |= _ALONE | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with tempfile.TemporaryDirectory(prefix="abruzzi-ray-", ignore_cleanup_errors=True) as sockets:
        ray = _imported()
        try:
            _start(ray, cpus, sockets)
            yield ray
        finally:
            ray.shutdown()


def _start(ray: Any, cpus: int, sockets: str) -> None:
    """Ray gives its own parts half a minute to come up, which on a busy machine is not enough at the first try.

    Raises AbruzziError where it does not come up at the last."""
    for left in reversed(range(_STARTS)):
        try:
            ray.init(
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.WARNING,
                _temp_dir=sockets,
            )
            return
        except Exception as error:  # its own words for this are a bare Exception
            ray.shutdown()
            if not left:
                raise AbruzziError("no_ray", f"Ray did not come up in {_STARTS} tries: {error}", status=503) from error
            logger.warning("Ray did not come up (%s); it is started again", error)


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise AbruzziError(
            "missing_package",
            "This stage is to run on Ray, which is not installed here.",
            hint="Install abruzzi-jobs[ray], or take resources.framework out of the recipe.",
        ) from error
    return ray
