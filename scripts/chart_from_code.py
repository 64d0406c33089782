"""Writes what the Helm chart takes from the code (`make chart`): the admission policies of the fence, and the controller's rights and those of the service of sandboxes.

What is committed is what this makes (tests/unit/charts/test_chart_templates.py).
"""

from __future__ import annotations

from pathlib import Path

import yaml

from abruzzi_operators.executors.fence import policies
from abruzzi_operators.executors.ground import cluster_rules, lease_rules, rules, sandbox_rules

TEMPLATES = Path(__file__).parent.parent / "charts/abruzzi/templates"
PLACE = "namespace-of-the-stages"
_MADE = "{{- /* Made by `make chart` from abruzzi_operators.executors.%s: change it there. */ -}}\n"


def files() -> dict[Path, str]:
    return {TEMPLATES / "fence.yaml": _fence(), TEMPLATES / "_rights.tpl": _rights()}


def _fence() -> str:
    things = yaml.safe_dump_all(policies(PLACE), sort_keys=False, width=10_000, explicit_start=True)
    things = things.replace(PLACE, '{{ include "abruzzi.stagesNamespace" . }}')
    condition = '{{- if and (include "abruzzi.onCluster" .) .Values.fence.create }}\n'
    return f"{_MADE % 'fence'}{condition}{things}{{{{- end }}}}\n"


def _rights() -> str:
    blocks = {
        "abruzzi.rules": rules(), "abruzzi.clusterRules": cluster_rules(), "abruzzi.leaseRules": lease_rules(),
        "abruzzi.sandboxRules": sandbox_rules(),
    }  # fmt: skip
    return _MADE % "ground" + "".join(
        f'{{{{- define "{name}" -}}}}\n{yaml.safe_dump(block, sort_keys=False)}{{{{- end -}}}}\n'
        for name, block in blocks.items()
    )


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
