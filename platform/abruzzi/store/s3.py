"""S3 through the `minio` package: the only module that knows it.

Its public `put_object` has no If-None-Match. The conditional write is therefore a presigned PUT sent with that header: the header
need not be signed, and the server honours it. Large objects are single PUTs of at most 5 GiB here, which is also S3's limit.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

import httpx
from minio import Minio
from minio.error import S3Error
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.store.credentials import credentials_provider
from abruzzi.store.objects import check_key

_ABSENT = ("NoSuchKey", "NoSuchObject", "NotFound")
_EXPIRY = timedelta(minutes=15)


class S3Store:
    """Credentials come from the file that ABRUZZI_STORE_CREDENTIALS names (an attempt on a cluster), else from the environment."""

    def __init__(self, config: S3Config) -> None:
        self.bucket = config.bucket
        self._client = Minio(
            config.endpoint, secure=config.secure, region=config.region, credentials=credentials_provider()
        )
        self._http = httpx.Client(timeout=httpx.Timeout(300.0, connect=10.0))

    def get(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        try:
            response = self._client.get_object(self.bucket, _readable(key))
        except S3Error as error:
            raise _translated(error, key) from error
        return cast(BinaryIO, io.BufferedReader(_Stream(response), 1 << 20))  # type: ignore[arg-type]

    def put(self, key: str, content: bytes | Path) -> None:
        try:
            if isinstance(content, Path):
                self._client.fput_object(self.bucket, check_key(key), str(content))
            else:
                self._client.put_object(self.bucket, check_key(key), io.BytesIO(content), len(content))
        except S3Error as error:
            raise _translated(error, key) from error

    @retry(
        retry=retry_if_exception_type(httpx.TransportError),
        wait=wait_random_exponential(max=3),
        stop=stop_after_attempt(5),
        reraise=True,
    )
    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        """A retry after a lost answer may find its own write and say False: the commit protocol compares contents then."""
        url = self._client.presigned_put_object(self.bucket, check_key(key), expires=_EXPIRY)
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        headers = {"If-None-Match": "*", "Content-Length": str(size)}
        if isinstance(content, Path):
            with content.open("rb") as source:
                answer = self._http.put(url, content=iter(lambda: source.read(1 << 20), b""), headers=headers)
        else:
            answer = self._http.put(url, content=content, headers=headers)
        if answer.status_code in (409, 412):
            return False
        if not answer.is_success:
            raise AbruzziError(
                "store_error", f"The object store answered {answer.status_code} to the write of {key!r}.", status=502
            )
        return True

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def size(self, key: str) -> int:
        try:
            return self._client.stat_object(self.bucket, _readable(key)).size or 0
        except S3Error as error:
            raise _translated(error, key) from error

    def list(self, prefix: str) -> Iterator[str]:
        below = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        for item in self._client.list_objects(self.bucket, prefix=below, recursive=True):
            if item.object_name and not item.is_dir:
                yield item.object_name

    def delete(self, key: str) -> None:
        self._client.remove_object(self.bucket, check_key(key))

    def free_bytes(self) -> None:
        return None

    def ensure_bucket(self) -> None:
        if not self._client.bucket_exists(self.bucket):
            self._client.make_bucket(self.bucket)


class _Stream(io.RawIOBase):
    """urllib3's response as a raw stream that gives its connection back when closed."""

    def __init__(self, response: object) -> None:
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        chunk: bytes = self._response.read(len(buffer))  # type: ignore[attr-defined]
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            self._response.close()  # type: ignore[attr-defined]
            self._response.release_conn()  # type: ignore[attr-defined]
        super().close()


def _readable(key: str) -> str:
    """Objects that people put into their own buckets are read under whatever name they have: in S3 a key leads nowhere else."""
    if not key:
        raise AbruzziError("bad_key", "An object's key must not be empty.")
    return key


def _translated(error: S3Error, key: str) -> AbruzziError:
    if error.code in _ABSENT:
        return NotFound("object", key)
    return AbruzziError("store_error", f"The object store refused {key!r}: {error.code}.", status=502)
