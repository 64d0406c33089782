"""How to reach a cluster, and as whom: in a pod by its service account, elsewhere by a kubeconfig (tokens, certificates, exec plugins, OIDC).

Reading these is the `kubernetes` package's part. The connection itself is httpx: its reads can be given up at any moment, which a thread that
is blocked in a socket cannot, and it is the same whichever of urllib3 and its fork urllib3-future an environment holds.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from kubernetes.client import Configuration
from kubernetes.config import (
    ConfigException,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME

from abruzzi.contracts.errors import AbruzziError

SERVICE_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECT_TIMEOUT_SECONDS = 5.0
MAX_CONNECTIONS = 64


class Access:
    """Thread-safe. `reload` reads everything again, after a 401 for example: a token file was rewritten, a certificate renewed."""

    def __init__(self, *, kubeconfig: Path | None = None, context: str | None = None) -> None:
        """`kubeconfig` None: the pod's service account if there is one, else $KUBECONFIG, else ~/.kube/config. Raises AbruzziError `no_cluster_access`."""
        self._in_cluster = kubeconfig is None and "KUBECONFIG" not in os.environ and SERVICE_HOST_ENV_NAME in os.environ
        # Named, because the package looks at the variable when it is imported and never again.
        self._kubeconfig = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG")
        self._context = context
        self._lock = threading.Lock()
        self.namespace = "default"
        self.tls_version = 0
        """Grows when `reload` finds another server, authority or client certificate: then old connections should go."""
        self._configuration = self._load()
        self._fingerprint = self._read_tls_files(self._configuration)

    @property
    def server(self) -> str:
        return self._configuration.host

    @property
    def origin(self) -> str:
        """For messages: where the access comes from."""
        if self._in_cluster:
            return "the pod's service account"
        return f"kubeconfig {self._kubeconfig or '~/.kube/config'}"

    @property
    def may_block(self) -> bool:
        """Whether `headers` may have to run a plugin or ask an identity provider."""
        return not self._in_cluster and self._configuration.refresh_api_key_hook is not None

    def headers(self) -> dict[str, str]:
        """With a token that the plugin or file gave lately. Blocks while an exec plugin runs. Raises AbruzziError `no_cluster_access`."""
        with self._lock, self._explained():
            return self._headers(self._configuration)

    @property
    def extensions(self) -> dict[str, str]:
        """For each request: the name that the server's certificate must bear, where the kubeconfig sets one."""
        name = self._configuration.tls_server_name
        return {"sni_hostname": name} if name else {}

    def reload(self) -> None:
        """Read everything again. Raises AbruzziError `no_cluster_access`, and keeps what it has."""
        with self._lock:
            before = self._fingerprint
            self._configuration = self._load()
            self._fingerprint = self._read_tls_files(self._configuration)
            self.tls_version += self._fingerprint != before

    def client(self) -> httpx.AsyncClient:
        """A new pool of connections as configured now. Proxies by the usual environment variables."""
        with self._lock:
            configuration = self._configuration
            return httpx.AsyncClient(
                base_url=configuration.host,
                verify=self._tls(configuration),
                limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=16, keepalive_expiry=30),
                follow_redirects=False,
            )

    def tls(self) -> ssl.SSLContext | bool:
        """For a connection of another kind than `client`'s, as configured now."""
        with self._lock:
            return self._tls(self._configuration)

    def _load(self) -> Configuration:
        configuration = Configuration()
        with self._explained():
            if self._in_cluster:
                load_incluster_config(client_configuration=configuration)
                if SERVICE_NAMESPACE_FILE.is_file():
                    self.namespace = SERVICE_NAMESPACE_FILE.read_text().strip()
            else:
                load_kube_config(self._kubeconfig, self._context, configuration, persist_config=False)
                self._check_kubeconfig(configuration)
        return configuration

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (ConfigException, OSError, yaml.YAMLError) as error:
            raise AbruzziError(
                "no_cluster_access",
                f"No access to a cluster from {self.origin}: {str(error).rstrip('.')}.",
                hint="Set KUBECONFIG to a file with a current context, or run inside a pod with a service account.",
            ) from error

    def _check_kubeconfig(self, configuration: Configuration) -> None:
        """The loader only logs when a credentials plugin fails, and would go on as system:anonymous."""
        contexts, active = list_kube_config_contexts(self._kubeconfig)
        chosen = next((c for c in contexts if c["name"] == self._context), active)["context"]
        self.namespace = chosen.get("namespace") or "default"
        has_credentials = bool(self._headers(configuration)) or bool(configuration.cert_file)
        if chosen.get("user") and not has_credentials and configuration.host.startswith("https"):
            raise ConfigException(
                f"user {chosen['user']!r} has no credentials (a plugin that failed, an empty token file)"
            )

    @staticmethod
    def _headers(configuration: Configuration) -> dict[str, str]:
        value = configuration.auth_settings().get("BearerToken", {}).get("value")
        return {"Authorization": value.strip()} if value else {}

    @staticmethod
    def _tls(configuration: Configuration) -> ssl.SSLContext | bool:
        if not configuration.host.startswith("https"):
            return True
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        return context

    @staticmethod
    def _read_tls_files(configuration: Configuration) -> tuple[str | bytes, ...]:
        files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        return (configuration.host, *(Path(name).read_bytes() if name else b"" for name in files))
