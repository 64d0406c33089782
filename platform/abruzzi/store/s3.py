"""S3 through the `minio` package: the only module that knows it.

Its public `put_object` has no If-None-Match. The conditional write is therefore a presigned PUT sent with that header: the header
need not be signed, and the server honours it. Large objects are single PUTs of at most 5 GiB here, which is also S3's limit.

A server that is away, restarting or overloaded is `store_away`, status 503, from every call and from every read of an open stream:
what may pass by itself is told from what was refused.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

import certifi
import httpx
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.store.credentials import credentials_provider
from abruzzi.store.objects import Content, check_key

_ABSENT = ("NoSuchKey", "NoSuchObject", "NotFound")
_PASSING = (
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "OperationAborted",
)
_EXPIRY = timedelta(minutes=15)
_CONNECT_SECONDS, _READ_SECONDS = 10.0, 300.0


def _is_away(error: BaseException) -> bool:
    return isinstance(error, AbruzziError) and error.code == "store_away"


class S3Store:
    """Credentials come from the file that ABRUZZI_STORE_CREDENTIALS names (an attempt on a cluster), else from the environment."""

    def __init__(self, config: S3Config) -> None:
        self.bucket = config.bucket
        self._client = Minio(
            config.endpoint,
            secure=config.secure,
            region=config.region,
            credentials=credentials_provider(),
            http_client=_pool(),
        )
        self._http = httpx.Client(timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS))

    def get(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def open(self, key: str, *, start: int = 0) -> BinaryIO:
        with _talking(key):
            response = self._client.get_object(self.bucket, _readable(key), offset=start)
        return cast(BinaryIO, io.BufferedReader(_Stream(response, key), 1 << 20))  # type: ignore[arg-type]

    def put(self, key: str, content: Content) -> None:
        with _talking(key):
            if isinstance(content, Path):
                self._client.fput_object(self.bucket, check_key(key), str(content))
            else:
                self._client.put_object(self.bucket, check_key(key), cast(BinaryIO, _Reading(content)), len(content))

    def put_below(self, prefix: str, content: bytes | memoryview, key: Callable[[], str]) -> None:
        """A server wants the key first."""
        self.put(key(), content)

    @retry(
        retry=retry_if_exception(_is_away),
        wait=wait_random_exponential(max=3),
        stop=stop_after_attempt(5),
        reraise=True,
    )
    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        """A retry after a lost answer may find its own write and say False: the commit protocol compares contents then."""
        with _talking(key):
            return self._put_conditionally(key, content)

    def _put_conditionally(self, key: str, content: bytes | Path) -> bool:
        url = self._client.presigned_put_object(self.bucket, check_key(key), expires=_EXPIRY)
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        headers = {"If-None-Match": "*", "Content-Length": str(size)}
        if isinstance(content, Path):
            with content.open("rb") as source:
                answer = self._http.put(url, content=iter(lambda: source.read(1 << 20), b""), headers=headers)
        else:
            answer = self._http.put(url, content=content, headers=headers)
        if answer.status_code == 412:
            return False
        if answer.status_code == 409 or answer.status_code >= 500:
            # 409 says that another write of this key was under way, not that one is there: ask again.
            raise _away(key, f"answered {answer.status_code}")
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
        with _talking(key):
            return self._client.stat_object(self.bucket, _readable(key)).size or 0

    def list(self, prefix: str) -> Iterator[str]:
        below = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        with _talking(prefix):
            for item in self._client.list_objects(self.bucket, prefix=below, recursive=True):
                if item.object_name and not item.is_dir:
                    yield item.object_name

    def delete(self, key: str) -> None:
        with _talking(key):
            self._client.remove_object(self.bucket, check_key(key))

    def free_bytes(self) -> None:
        return None

    def ensure_bucket(self) -> None:
        with _talking(self.bucket):
            if not self._client.bucket_exists(self.bucket):
                self._client.make_bucket(self.bucket)


class _Reading(io.RawIOBase):
    """Memory as a stream, a part of it copied at a time."""

    def __init__(self, content: bytes | memoryview) -> None:
        self._view, self._at = memoryview(content), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        found = self._view[self._at : self._at + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


class _Stream(io.RawIOBase):
    """urllib3's response as a raw stream that gives its connection back when closed."""

    def __init__(self, response: object, key: str) -> None:
        self._response, self._key = response, key

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _talking(self._key):
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


def _pool() -> urllib3.PoolManager:
    """minio's own, but for the time to connect (theirs is five minutes): an address that swallows packets is soon known to be away."""
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        maxsize=10,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
        retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
    )


@contextmanager
def _talking(key: str) -> Iterator[None]:
    """Three libraries' errors in our words."""
    try:
        yield
    except S3Error as error:
        raise _translated(error, key) from error
    except ServerError as error:
        raise _away(key, f"answered {error.status_code}") from error
    except InvalidResponseError as error:
        raise _away(key, "answered something that is not S3's (a proxy before it?)") from error
    except (urllib3.exceptions.HTTPError, httpx.TransportError, ConnectionError, TimeoutError) as error:
        raise _away(key, f"does not answer ({type(error).__name__})") from error


def _away(key: str, what: str) -> AbruzziError:
    return AbruzziError(
        "store_away",
        f"The object store {what}, at {key!r}.",
        status=503,
        hint="It is tried again; see that the store runs.",
    )


def _translated(error: S3Error, key: str) -> AbruzziError:
    if error.code in _ABSENT:
        return NotFound("object", key)
    if error.response.status >= 500 or error.code in _PASSING:
        return _away(key, f"answered {error.code}")
    return AbruzziError("store_error", f"The object store refused {key!r}: {error.code}.", status=502)
