"""Credentials that reach one attempt's stage only: AssumeRole with a session policy (design section 4.5). The controller makes them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio.credentials import AssumeRoleProvider, Credentials

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import S3Store, StageSpec
from abruzzi.store.commit import prefix_of
from abruzzi.store.credentials import credentials_provider

SESSION_SECONDS = 12 * 3600
"""What AWS and MinIO grant at most without further settings."""


def assume_role(spec: StageSpec, *, seconds: int = SESSION_SECONDS) -> Credentials:
    """Credentials for one attempt, from those of this process. Raises AbruzziError `store_error`. Blocks; S3 stores only."""
    assert isinstance(spec.store, S3Store)
    own = credentials_provider().retrieve()
    provider = AssumeRoleProvider(
        sts_endpoint=f"{'https' if spec.store.secure else 'http'}://{spec.store.endpoint}",
        access_key=own.access_key,
        secret_key=own.secret_key,
        duration_seconds=seconds,
        policy=json.dumps(session_policy(spec)),
        region=spec.store.region,
        role_arn=os.environ.get("ABRUZZI_STORE_ROLE_ARN"),  # AWS needs one; MinIO does not look at it
        role_session_name=spec.attempt_id[:64],
    )
    try:
        return provider.retrieve()
    except (ValueError, OSError, urllib3.exceptions.HTTPError) as error:
        raise AbruzziError(
            "store_error",
            f"The object store at {spec.store.endpoint} gives attempt {spec.attempt_id} no credentials of its own: {error}.",
            hint="It must offer AssumeRole (STS) to the platform's user.",
            status=502,
        ) from error


def session_policy(spec: StageSpec) -> dict[str, Any]:
    """What an attempt may do: everything below its stage's prefix, and read what it was given and its own texts. Pure."""
    assert isinstance(spec.store, S3Store)
    bucket = f"arn:aws:s3:::{spec.store.bucket}"
    given = [*spec.inputs.values(), *([spec.resume] if spec.resume else [])]
    readable = sorted({spec.output_prefix, *(prefix_of(ref.manifest_key) for ref in given)})
    sources = [f"arn:aws:s3:::{name}" for name in _source_buckets(spec)]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject"],
                "Resource": [*(f"{bucket}/{prefix}*" for prefix in readable), *(f"{name}/*" for name in sources)],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
                "Resource": [f"{bucket}/{spec.output_prefix}*"],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [bucket],
                "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in readable]}},
            },
            *({"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [name]} for name in sources),
            {"Effect": "Allow", "Action": ["s3:GetBucketLocation"], "Resource": [bucket, *sources]},
        ],
    }


def _source_buckets(spec: StageSpec) -> list[str]:
    """Of a corpus's own texts. Never the platform's bucket, which holds the work of all projects."""
    assert isinstance(spec.store, S3Store)
    sources = (spec.config.get("data") or {}).get("sources") or ()
    named = {urlsplit(source).netloc for source in sources if str(source).startswith("s3://")}
    return sorted(named - {spec.store.bucket, ""})


def to_json(credentials: Credentials) -> str:
    """As FileProvider reads it."""
    expiration = credentials.expiration
    return json.dumps(
        {
            "access_key": credentials.access_key,
            "secret_key": credentials.secret_key,
            "session_token": credentials.session_token,
            "expires_at": expiration.replace(tzinfo=UTC).isoformat() if expiration else None,
        }
    )


def expires_at(text: str) -> datetime | None:
    content = json.loads(text)
    return datetime.fromisoformat(content["expires_at"]) if content["expires_at"] else None
