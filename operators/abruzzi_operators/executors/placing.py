"""Where an attempt runs: from its recipe's pool and the operator's settings to a placement. No string of a recipe goes further than its pool's name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import StageSpec
from abruzzi.kit.settings import Settings
from abruzzi_operators.renderers import Placement, PodAdditions, RankResources

DEFAULT_POOL = "local"
"""What recipes say that name no pool; on a cluster: the platform's default."""


class PodTemplate(BaseModel):
    """The file that ABRUZZI_POD_TEMPLATE names. Volumes and mounts are Kubernetes' own words."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    image_pull_secrets: tuple[str, ...] = ()
    extended_resources: dict[str, int] = Field(default_factory=dict)
    service_account: str = ""


class Placer:
    """An executor's `place`."""

    def __init__(self, settings: Settings, *, api_url: str) -> None:
        """Raises SystemExit for settings that no pod could be made of."""
        if settings.stage_image is None:
            raise SystemExit("ABRUZZI_STAGE_IMAGE is not set: the image of the built-in stages.")
        template = read_template(settings.pod_template) if settings.pod_template else PodTemplate()
        defaults = settings.placement
        self._default = Placement(
            namespace=settings.namespace,
            image=settings.stage_image,
            api_url=api_url,
            queue=defaults.queue,
            ranks_per_node=defaults.ranks_per_node,
            resources=RankResources(defaults.cpu_cores, defaults.memory, defaults.gpus),
            service_account=template.service_account,
            additions=PodAdditions(
                template.volumes,
                template.volume_mounts,
                template.env,
                template.annotations,
                template.image_pull_secrets,
                template.extended_resources,
            ),
        )

    async def __call__(self, spec: StageSpec, excluded_nodes: Sequence[str]) -> Placement:
        """Raises AbruzziError `unknown_pool`."""
        name = (spec.config.get("resources") or {}).get("pool", DEFAULT_POOL)
        if name != DEFAULT_POOL:
            raise AbruzziError(
                "unknown_pool",
                f"Stage {spec.stage_id!r}: this platform has no pool {name!r}.",
                hint=f'Say pool = "{DEFAULT_POOL}" for the default one.',
                status=422,
            )
        return replace(self._default, excluded_nodes=tuple(excluded_nodes))


def read_template(path: Path) -> PodTemplate:
    """Raises SystemExit, saying what is wrong where."""
    try:
        return PodTemplate.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError, ValidationError) as error:
        raise SystemExit(f"ABRUZZI_POD_TEMPLATE: {path} is no pod template: {error}") from error
