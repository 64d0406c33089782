"""`python -m abruzzi.store`: make the bucket of ABRUZZI_STORE (or the directory), if it is not there yet."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from pydantic import Field, TypeAdapter

from abruzzi.contracts.stage import StoreConfig
from abruzzi.store import open_store
from abruzzi.store.s3 import S3Store


def main() -> None:
    described = os.environ.get("ABRUZZI_STORE")
    if not described:
        raise SystemExit("ABRUZZI_STORE is not set")
    store = open_store(TypeAdapter(Annotated[StoreConfig, Field(discriminator="kind")]).validate_json(described))
    if isinstance(store, S3Store):
        store.ensure_bucket()
        sys.stdout.write(f"bucket {store.bucket} is there\n")


if __name__ == "__main__":
    main()
