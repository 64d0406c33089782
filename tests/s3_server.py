"""A real S3 server for tests: the `minio` binary of $ABRUZZI_CLUSTER_TOOLS or the PATH.

Where there is none, `S3Server()` is moto's, which speaks the same API over HTTP but checks If-None-Match and writes in two steps and forgets
everything when it ends. What rests on either asks for `S3Server(real=True)`, which is skipped then, with a sentence that says what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import httpx
import pytest
from ports import free_port

from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.store.s3 import S3Store

ACCESS, SECRET = "abruzzi-test", "abruzzi-test-secret"
START_SECONDS = 240.0
NO_REAL_SERVER = "no cluster tools: a real S3 server is needed; set ABRUZZI_CLUSTER_TOOLS to the unpacked tools, or put minio on the PATH"
"""skip_report.py knows the first three words: CI skips such a test only where it was given no tools."""


def minio_binary() -> str | None:
    tools = os.environ.get("ABRUZZI_CLUSTER_TOOLS")
    if tools and (Path(tools) / "minio").is_file():
        return str(Path(tools) / "minio")
    return shutil.which("minio")


class S3Server:
    """Context manager; sets the credentials in the environment."""

    def __init__(self, *, real: bool = False) -> None:
        self._binary = minio_binary()
        if real and self._binary is None:
            pytest.skip(NO_REAL_SERVER)

    def __enter__(self) -> S3Server:
        self._folder = tempfile.TemporaryDirectory(prefix="abruzzi-s3-")
        self._port = free_port()
        os.environ.update(AWS_ACCESS_KEY_ID=ACCESS, AWS_SECRET_ACCESS_KEY=SECRET)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def is_real(self) -> bool:
        return self._binary is not None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Also again after `stop`: the same port and, of a real server, the same objects."""
        command = (
            [self._binary, "server", "--quiet", "--address", self.endpoint, self._folder.name]
            if self._binary
            else [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        )
        environment = {**os.environ, "MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert time.monotonic() < deadline, "the S3 server does not answer"
            assert self._process.poll() is None, "the S3 server ended"
            time.sleep(0.05)

    def stop(self) -> None:
        """As a crash does."""
        self._process.kill()
        self._process.wait()

    def new_bucket(self) -> S3Config:
        config = S3Config(endpoint=self.endpoint, bucket=f"test-{uuid.uuid4().hex[:12]}", secure=False)
        S3Store(config).ensure_bucket()
        return config

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://{self.endpoint}/", timeout=1.0).status_code < 500
        except httpx.TransportError:
            return False
