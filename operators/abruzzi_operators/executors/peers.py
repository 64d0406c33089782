"""Who may speak to the pods of an attempt: each other, and nobody else.

In a namespace whose default is "nothing" (the Helm chart's), a policy for all stages could only let all of them meet: NetworkPolicy has no word for
"the same label's value". So each attempt of several pods has one of its own, made before its pods and removed with them. What every stage may
reach (API, names, object store) is in the chart's policy: policies add up.
"""

from __future__ import annotations

from collections.abc import Mapping

from abruzzi.contracts.stage import workload_name
from abruzzi_operators.kubernetes.resources import NETWORK_POLICIES, Object
from abruzzi_operators.renderers.names import LABEL_ATTEMPT


def peer_policy(attempt_id: str, labels: Mapping[str, str], namespace: str) -> Object:
    """All ports: ranks and Ray choose theirs. `labels`: the attempt's own (renderers/names.py)."""
    attempt = {"podSelector": {"matchLabels": {LABEL_ATTEMPT: attempt_id}}}
    rules: Object = {
        **attempt,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [attempt]}],
        "egress": [{"to": [attempt]}],
    }
    policy = NETWORK_POLICIES.new(workload_name(attempt_id), namespace, spec=rules)
    policy["metadata"]["labels"] = dict(labels)
    return policy
