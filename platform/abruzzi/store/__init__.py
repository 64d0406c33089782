"""Object storage, manifests and the commit protocol."""

from abruzzi.store.commit import (
    CorruptArtifact,
    blob_key,
    check_free_space,
    commit_artifact,
    is_pinned,
    list_manifests,
    manifest_key,
    materialize,
    missing_manifests,
    open_store,
    pin_artifact,
    prefix_of,
    read_manifest,
    remove_artifact,
    verify_manifest,
)
from abruzzi.store.objects import DirectoryStore, ObjectStore, check_key
from abruzzi.store.resume import (
    Resume,
    Setback,
    checkpoint_after_divergences,
    data_to_pass_over,
    newest_verified_checkpoint,
)

__all__ = [
    "CorruptArtifact",
    "DirectoryStore",
    "ObjectStore",
    "Resume",
    "Setback",
    "blob_key",
    "check_free_space",
    "check_key",
    "checkpoint_after_divergences",
    "commit_artifact",
    "data_to_pass_over",
    "is_pinned",
    "list_manifests",
    "manifest_key",
    "materialize",
    "missing_manifests",
    "newest_verified_checkpoint",
    "open_store",
    "pin_artifact",
    "prefix_of",
    "read_manifest",
    "remove_artifact",
    "verify_manifest",
]
