"""Object storage, manifests and the commit protocol."""

from abruzzi.store.commit import (
    CorruptArtifact,
    Resume,
    blob_key,
    check_free_space,
    commit_artifact,
    list_manifests,
    manifest_key,
    materialize,
    missing_manifests,
    newest_verified_checkpoint,
    open_store,
    prefix_of,
    read_manifest,
    remove_artifact,
    verify_manifest,
)
from abruzzi.store.objects import DirectoryStore, ObjectStore, check_key

__all__ = [
    "CorruptArtifact",
    "DirectoryStore",
    "ObjectStore",
    "Resume",
    "blob_key",
    "check_free_space",
    "check_key",
    "commit_artifact",
    "list_manifests",
    "manifest_key",
    "materialize",
    "missing_manifests",
    "newest_verified_checkpoint",
    "open_store",
    "prefix_of",
    "read_manifest",
    "remove_artifact",
    "verify_manifest",
]
