"""The node does what a node does: runs a pod, keeps its log, resolves names."""

from __future__ import annotations

import re
from typing import Any

from cluster.handle import ClusterHandle
from cluster.layout import APISERVER_PORT


def pod_spec(image: str, script: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script],
    }
    return {"restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 1}


def job(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }


def test_a_job_runs_to_its_end_and_its_log_can_be_read(cluster: ClusterHandle, namespace: str):
    cluster.kubectl.create(
        job("hello", pod_spec(cluster.image("busybox"), "echo hello from $HOSTNAME")), namespace=namespace
    )
    assert cluster.wait_job("hello", namespace).startswith("hello from hello-")


def test_a_failed_job_tells_its_exit_code_and_its_last_words(cluster: ClusterHandle, namespace: str):
    script = "echo '{\"exit_code\": 65}' > /dev/termination-log; exit 65"
    cluster.kubectl.create(job("bad", pod_spec(cluster.image("busybox"), script)), namespace=namespace)
    cluster.wait_job("bad", namespace, ends="Failed")
    pod = cluster.kubectl.json("get", "pods", "-n", namespace, "-l", "job-name=bad")["items"][0]
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (65, '{"exit_code": 65}\n')


def test_a_pod_finds_services_and_the_apiserver_by_name(cluster: ClusterHandle, namespace: str):
    script = "getent hosts kubernetes.default && nslookup kubernetes.default.svc.cluster.local"
    cluster.kubectl.create(job("names", pod_spec(cluster.image("busybox"), script)), namespace=namespace)
    address = cluster.get("service", "kubernetes", "default")["spec"]["clusterIP"]
    log = cluster.wait_job("names", namespace)
    # Whole: that of the DNS, which nslookup prints as well, may begin with it.
    assert len(re.findall(rf"(?<![\d.]){re.escape(address)}(?![\d.])", log)) == 2


def test_a_pod_reaches_another_one_through_its_service(cluster: ClusterHandle, namespace: str):
    server = pod_spec(cluster.image("busybox"), "echo here > /tmp/index.html && exec httpd -f -p 8080 -h /tmp")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "server", "labels": {"app": "server"}},
        "spec": server,
    }
    cluster.kubectl.create(service, pod, namespace=namespace)
    cluster.kubectl.wait("pod/server", "condition=Ready", namespace=namespace)
    script = "for i in $(seq 50); do wget -q -O - http://server && exit 0; sleep 0.2; done; exit 1"
    cluster.kubectl.create(job("client", pod_spec(cluster.image("busybox"), script)), namespace=namespace)
    assert cluster.wait_job("client", namespace) == "here\n"


def test_a_pod_goes_on_reaching_the_node_while_others_come_and_go(cluster: ClusterHandle, namespace: str):
    reach = f"import socket; socket.create_connection(({cluster.host_address!r}, {APISERVER_PORT}), 1)"
    script = f"trap 'exit 0' TERM; while :; do python3 -I -S -c \"{reach}\" 2>&1; sleep 0.1 & wait; done"
    image = cluster.python_image()

    def start(name: str, script: str) -> None:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod_spec(image, script)}
        cluster.kubectl.create(pod, namespace=namespace)
        cluster.kubectl.wait(f"pod/{name}", "condition=Ready", namespace=namespace)

    start("stays", script)
    for number in range(4):
        start(f"goes-{number}", "exec sleep 1000")
        cluster.kubectl("delete", "pod", f"goes-{number}", "-n", namespace)
    said = cluster.kubectl(
        "exec", "stays", "-n", namespace, "--", "python3", "-I", "-S", "-c", f"{reach}; print('there')"
    )
    assert said == "there\n"
    assert cluster.kubectl("logs", "stays", "-n", namespace) == ""


def test_a_command_can_be_run_in_a_pod(cluster: ClusterHandle, namespace: str):
    spec = pod_spec(cluster.image("busybox"), "exec sleep 600")
    cluster.kubectl.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}, namespace=namespace
    )
    cluster.kubectl.wait("pod/a", "condition=Ready", namespace=namespace)
    assert cluster.kubectl("exec", "a", "-n", namespace, "--", "echo", "inside") == "inside\n"
