"""etcd, kube-apiserver, kube-controller-manager, kube-scheduler and CoreDNS."""

from __future__ import annotations

import ssl

import httpx
from cluster.binaries import Toolbox
from cluster.components import Component
from cluster.layout import (
    APISERVER_PORT,
    CLUSTER_CIDR,
    ETCD_PEER_PORT,
    ETCD_PORT,
    HOST_ADDRESS,
    SERVICE_CIDR,
    Layout,
)

ETCD_URL = f"http://127.0.0.1:{ETCD_PORT}"
READY_SECONDS = 240.0


def admin_tls(layout: Layout) -> ssl.SSLContext:
    """Of a cluster administrator, for connections to the apiserver."""
    trust = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
    trust.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")
    return trust


def admin_client(layout: Layout, **options: object) -> httpx.Client:
    """The apiserver as cluster administrator; no client-side rate limit."""
    return httpx.Client(
        base_url=f"https://127.0.0.1:{APISERVER_PORT}",
        verify=admin_tls(layout),
        trust_env=False,
        timeout=30.0,
        **options,
    )  # type: ignore[arg-type]


def start_etcd(layout: Layout, tools: Toolbox) -> Component:
    etcd = Component("etcd", layout)
    peers = f"http://127.0.0.1:{ETCD_PEER_PORT}"
    etcd.start(
        [
            *(tools.path("etcd"), "--data-dir", layout.etcd, "--unsafe-no-fsync", "--quota-backend-bytes=4294967296"),
            *("--listen-client-urls", ETCD_URL, "--advertise-client-urls", ETCD_URL),
            *(
                "--listen-peer-urls",
                peers,
                "--initial-advertise-peer-urls",
                peers,
                "--initial-cluster",
                f"default={peers}",
            ),
        ]
    )
    return etcd


def start_apiserver(layout: Layout, tools: Toolbox) -> Component:
    pki = layout.pki
    apiserver = Component("apiserver", layout)
    apiserver.start(
        [
            *(tools.path("kube-apiserver"), f"--etcd-servers={ETCD_URL}"),
            *("--bind-address=0.0.0.0", f"--advertise-address={HOST_ADDRESS}", f"--secure-port={APISERVER_PORT}"),
            *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
            f"--client-ca-file={pki}/ca.crt",
            f"--service-account-key-file={pki}/service-accounts.pub",
            f"--service-account-signing-key-file={pki}/service-accounts.key",
            *("--service-account-issuer=https://kubernetes.default.svc", f"--service-cluster-ip-range={SERVICE_CIDR}"),
            *(
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
            ),
            # Without the address type, logs and exec would look for the node's name in a DNS that has none.
            *(f"--kubelet-client-certificate={pki}/admin.crt", f"--kubelet-client-key={pki}/admin.key"),
            "--kubelet-preferred-address-types=InternalIP",
            # The aggregation layer: Kueue's visibility API is served through it.
            *(f"--requestheader-client-ca-file={pki}/ca.crt", "--requestheader-allowed-names=front-proxy"),
            *("--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            *(f"--proxy-client-cert-file={pki}/front-proxy.crt", f"--proxy-client-key-file={pki}/front-proxy.key"),
        ]
    )
    return apiserver


def wait_apiserver(layout: Layout, apiserver: Component) -> None:
    with admin_client(layout) as client:

        def is_ready() -> bool:
            try:
                return client.get("/readyz", timeout=5.0).is_success
            except httpx.TransportError:
                return False

        apiserver.wait_ready(is_ready, seconds=READY_SECONDS)


def start_controller_manager(layout: Layout, tools: Toolbox) -> None:
    Component("controller-manager", layout).start(
        [
            *(tools.path("kube-controller-manager"), f"--kubeconfig={layout.kubeconfig('controller-manager')}"),
            *(
                f"--service-account-private-key-file={layout.pki}/service-accounts.key",
                f"--root-ca-file={layout.pki}/ca.crt",
            ),
            # Pod addresses come from the node's CNI; a /24 for each of a thousand simulated nodes would not fit.
            *(
                f"--cluster-cidr={CLUSTER_CIDR}",
                "--allocate-node-cidrs=false",
                "--use-service-account-credentials=true",
            ),
            *("--leader-elect=false", "--kube-api-qps=300", "--kube-api-burst=500"),
        ]
    )


def start_scheduler(layout: Layout, tools: Toolbox) -> None:
    config = layout.state / "scheduler.yaml"
    config.write_text(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
        f"clientConnection: {{kubeconfig: {layout.kubeconfig('scheduler')}, qps: 300, burst: 500}}\n"
        "leaderElection: {leaderElect: false}\n"
    )
    Component("scheduler", layout).start([tools.path("kube-scheduler"), f"--config={config}"])


def start_coredns(layout: Layout, tools: Toolbox) -> None:
    """On the host, at the bridge's address; answers for the cluster's names only."""
    corefile = layout.state / "Corefile"
    corefile.write_text(
        f"cluster.local:53 {{\n  bind {HOST_ADDRESS}\n  errors\n  ready {HOST_ADDRESS}:8181\n"
        f"  kubernetes cluster.local {{\n    kubeconfig {layout.kubeconfig()}\n    pods insecure\n    ttl 2\n  }}\n}}\n"
    )
    Component("coredns", layout).start([tools.path("coredns"), "-conf", corefile])


def wait_coredns(layout: Layout) -> None:
    def is_ready() -> bool:
        try:
            return httpx.get(f"http://{HOST_ADDRESS}:8181/ready", trust_env=False, timeout=2.0).is_success
        except httpx.TransportError:
            return False

    Component("coredns", layout).wait_ready(is_ready, seconds=READY_SECONDS)
