"""Bytes put into an S3 server as plainly as can be, by presigned requests: not hashed, payload unsigned, not copied, nothing remembered of them.

What is fastest depends on the server and on the cores that are left beside it, so there are several ways: a bench takes turns and compares with the best.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import urllib3
from minio import Minio

PART_WAYS: Mapping[str, tuple[int, int]] = {
    "one PUT": (1 << 40, 1),
    "2 × 64 MiB parts": (64 << 20, 2),
    "3 × 16 MiB parts": (16 << 20, 3),
    "8 × 16 MiB parts": (16 << 20, 8),
}
"""Way → (bytes of a part, requests at once)."""
_EXPIRY = timedelta(minutes=15)


class PlainS3:
    """Of one process; connections are kept."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client, self._bucket = client, bucket
        self._http = urllib3.PoolManager(maxsize=16, timeout=urllib3.Timeout(connect=10, read=600), retries=False)

    def put(self, key: str, content: memoryview, way: str) -> None:
        part_bytes, at_once = PART_WAYS[way]
        if len(content) <= part_bytes:
            self._send("PUT", key, {}, content)
            return
        created = self._send("POST", key, {"uploads": ""}, b"").data.decode()
        upload = created.split("<UploadId>")[1].split("</UploadId>")[0]

        def part(number: int) -> str:
            view = content[(number - 1) * part_bytes : number * part_bytes]
            answer = self._send("PUT", key, {"partNumber": str(number), "uploadId": upload}, view)
            return f"<Part><PartNumber>{number}</PartNumber><ETag>{answer.headers['ETag']}</ETag></Part>"

        with ThreadPoolExecutor(at_once) as pool:
            parts = "".join(pool.map(part, range(1, -(-len(content) // part_bytes) + 1)))
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        answer = self._send("POST", key, {"uploadId": upload}, document.encode())
        assert b"<Error>" not in answer.data, answer.data  # S3 may say so after 200

    def _send(
        self, method: str, key: str, query: Mapping[str, str], body: bytes | memoryview
    ) -> urllib3.BaseHTTPResponse:
        url = self._client.get_presigned_url(method, self._bucket, key, expires=_EXPIRY, extra_query_params={**query})
        answer = self._http.request(method, url, body=body)
        assert answer.status == 200, (answer.status, answer.data)
        return answer
