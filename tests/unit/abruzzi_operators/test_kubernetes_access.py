"""Credentials from where clusters keep them, and what happens when they change or are not there."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config import incluster_config

from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.kubernetes import access as access_module
from abruzzi_operators.kubernetes.access import Access


def kubeconfig(folder: Path, user: dict[str, Any], *, server: str = "https://10.0.0.1:6443", **cluster: Any) -> Path:
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}], "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "stages"}},
            {"name": "there", "context": {"cluster": "c", "user": "u", "namespace": "elsewhere"}},
        ],
    }  # fmt: skip
    path = folder / "config"
    path.write_text(yaml.safe_dump(document))
    return path


def plugin(folder: Path, body: str) -> dict[str, Any]:
    """A credentials plugin that counts how often it ran."""
    script = folder / "plugin"
    script.write_text(
        f"#!{sys.executable}\nimport json, pathlib\nruns = pathlib.Path({str(folder / 'runs')!r})\n{body}"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), "interactiveMode": "Never"}
    }


def test_a_token_file_is_read_again_on_reload(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    access = Access(kubeconfig=kubeconfig(tmp_path, {"tokenFile": str(tmp_path / "token")}))
    assert access.headers() == {"Authorization": "Bearer first"}
    (tmp_path / "token").write_text("second")
    access.reload()
    assert access.headers() == {"Authorization": "Bearer second"}
    assert access.tls_version == 0


def test_the_context_chooses_the_namespace(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "t"})
    assert Access(kubeconfig=path).namespace == "stages"
    assert Access(kubeconfig=path, context="there").namespace == "elsewhere"


def test_a_plugins_token_is_renewed_when_it_has_expired(tmp_path: Path) -> None:
    user = plugin(
        tmp_path,
        "n = int(runs.read_text()) + 1 if runs.exists() else 1\nruns.write_text(str(n))\n"
        "expires = '2020-01-01T00:00:00Z' if n == 1 else '2099-01-01T00:00:00Z'\n"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential',"
        " 'status': {'token': f'token-{n}', 'expirationTimestamp': expires}}))\n",
    )
    access = Access(kubeconfig=kubeconfig(tmp_path, user))
    assert access.may_block
    assert access.headers() == {"Authorization": "Bearer token-2"}
    runs = int((tmp_path / "runs").read_text())
    assert access.headers() == {"Authorization": "Bearer token-2"}
    assert int((tmp_path / "runs").read_text()) == runs, "a token that is good is not asked for again"


def test_a_plugin_that_fails_is_an_error_and_not_an_anonymous_user(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, plugin(tmp_path, "raise SystemExit('no such identity')\n"))
    with pytest.raises(AbruzziError, match="user 'u' has no credentials") as failed:
        Access(kubeconfig=path)
    assert failed.value.code == "no_cluster_access"


@pytest.mark.parametrize("content", [None, "", "not: a kubeconfig", "{"])
def test_a_kubeconfig_that_is_none_is_named_with_the_remedy(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AbruzziError, match=r"config.*KUBECONFIG"):
        Access(kubeconfig=path)


def test_a_failed_reload_keeps_what_worked(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "good"})
    access = Access(kubeconfig=path)
    path.write_text("{")
    with pytest.raises(AbruzziError):
        access.reload()
    assert access.headers() == {"Authorization": "Bearer good"}


def test_another_authority_asks_for_new_connections(tmp_path: Path) -> None:
    authority = tmp_path / "ca.crt"
    authority.write_text("one")
    access = Access(kubeconfig=kubeconfig(tmp_path, {"token": "t"}, **{"certificate-authority": str(authority)}))
    access.reload()
    assert access.tls_version == 0
    authority.write_text("two")
    access.reload()
    assert access.tls_version == 1


def test_a_server_name_of_the_kubeconfig_is_asked_for(tmp_path: Path) -> None:
    access = Access(kubeconfig=kubeconfig(tmp_path, {"token": "t"}, **{"tls-server-name": "kubernetes"}))
    assert access.extensions == {"sni_hostname": "kubernetes"}


def test_in_a_pod_the_service_account_is_used_and_its_rotated_token_after_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in {"token": "first", "ca.crt": "certificate", "namespace": "abruzzi"}.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(access_module, "SERVICE_NAMESPACE_FILE", tmp_path / "namespace")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    access = Access()
    assert (access.server, access.namespace) == ("https://10.96.0.1:443", "abruzzi")
    assert access.headers() == {"Authorization": "bearer first"}
    (tmp_path / "token").write_text("second")
    access.reload()
    assert access.headers() == {"Authorization": "bearer second"}
    assert not access.may_block


def test_a_pod_without_a_service_account_token_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "nothing"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(AbruzziError, match="token file"):
        Access()


def test_credentials_are_not_in_messages(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"token": "very-secret"})
    document = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    document["current-context"] = "nowhere"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(AbruzziError) as failed:
        Access(kubeconfig=path)
    assert "very-secret" not in str(failed.value)
