"""A real S3 server for tests: the `minio` binary of $ABRUZZI_CLUSTER_TOOLS or the PATH, else moto's server, which speaks the same API over HTTP."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import httpx

from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.store.s3 import S3Store

ACCESS, SECRET = "abruzzi-test", "abruzzi-test-secret"
START_SECONDS = 30.0


def minio_binary() -> str | None:
    tools = os.environ.get("ABRUZZI_CLUSTER_TOOLS")
    if tools and (Path(tools) / "minio").is_file():
        return str(Path(tools) / "minio")
    return shutil.which("minio")


class S3Server:
    """Context manager; sets the credentials in the environment."""

    def __enter__(self) -> S3Server:
        self._folder = tempfile.TemporaryDirectory(prefix="abruzzi-s3-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        os.environ.update(AWS_ACCESS_KEY_ID=ACCESS, AWS_SECRET_ACCESS_KEY=SECRET)
        binary = minio_binary()
        command = (
            [binary, "server", "--quiet", "--address", f"127.0.0.1:{self._port}", self._folder.name]
            if binary
            else [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        )
        environment = {**os.environ, "MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self._port}/", timeout=1.0)
                return self
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the S3 server does not answer"
                assert self._process.poll() is None, "the S3 server ended"
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def new_bucket(self) -> S3Config:
        config = S3Config(endpoint=f"127.0.0.1:{self._port}", bucket=f"test-{uuid.uuid4().hex[:12]}", secure=False)
        S3Store(config).ensure_bucket()
        return config
