"""`kubectl apply`, `wait`, `explain` and `delete` of a Run before a real apiserver, with the controller's own rights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_render import CHART
from cluster.apiserver import ApiServer, needs_apiserver
from cluster.binaries import Toolbox
from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from run_objects import ONE_STAGE, SECONDS, Objects, condition, namespace, run

from abruzzi_operators.executors import ground
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.errors import Denied
from abruzzi_operators.kubernetes.resources import NAMESPACES, RUNS
from abruzzi_operators.kubernetes.rest_api import RestApi

WAIT = f"--timeout={SECONDS:.0f}s"
pytestmark = [
    needs_apiserver,
    pytest.mark.skipif(Toolbox().find("kubectl") is None, reason="no kubectl here"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("apiserver"), crds=[CHART / "crds"]) as made:
        for thing in (namespace("ml"), namespace("closed", None)):
            made.apply(f"/api/v1/namespaces/{thing['metadata']['name']}", thing)
        who = {"kind": "ServiceAccount", "namespace": "default", "name": "controller"}
        for thing in ground.manifests("ml", who):
            if thing["kind"].startswith("ClusterRole"):
                path = f"/apis/rbac.authorization.k8s.io/v1/{thing['kind'].lower()}s/{thing['metadata']['name']}"
                made.apply(path, thing)
        yield made


@pytest.fixture
async def objects(server: ApiServer, world, tmp_path: Path) -> AsyncIterator[Objects]:
    """With the rights of the controller's account and nothing else; looks after the objects by itself."""
    token = tmp_path / "token"
    token.write_text(server.account_token("controller"))
    async with RestApi(Access(kubeconfig=server.kubeconfig_with_token(token))) as api:
        async with asyncio.timeout(SECONDS):
            while True:  # the apiserver takes a moment to know new roles
                try:
                    await asyncio.gather(*(api.page(kind, limit=1) for kind in (RUNS, NAMESPACES)))
                    break
                except Denied:
                    await asyncio.sleep(0.1)
        made = Objects(api, world)
        task = asyncio.create_task(made.controller.run())
        yield made
        task.cancel()


class Shell:
    """kubectl in a thread, as administrator."""

    def __init__(self, server: ApiServer) -> None:
        self._kubectl = Kubectl(Toolbox().path("kubectl"), server.kubeconfig)

    async def __call__(self, *words: str, text: str | None = None) -> str:
        return await asyncio.to_thread(self._kubectl, "-n", "ml", *words, input_text=text, seconds=SECONDS + 30)

    async def refused(self, *words: str, text: str | None = None) -> str:
        """What it says instead."""
        with pytest.raises(ClusterError) as caught:
            await self(*words, text=text)
        return str(caught.value)

    async def apply(self, name: str, **spec: Any) -> str:
        return await self("apply", "-f", "-", text=yaml.safe_dump(run(name, **spec)))

    async def get(self, name: str) -> Mapping[str, Any]:
        return json.loads(await self("get", "run.abruzzi.io", name, "-o", "json"))


@pytest.fixture
def kubectl(server: ApiServer) -> Shell:
    return Shell(server)


async def test_kubectl_applies_a_run_waits_for_its_success_and_lists_it(
    objects: Objects, world, kubectl: Shell
) -> None:
    await kubectl.apply("good")
    await kubectl("wait", "--for=condition=Accepted", "run.abruzzi.io/good", WAIT)
    run_id = (await kubectl.get("good"))["status"]["runId"]
    waits = asyncio.create_task(kubectl("wait", "--for=condition=Succeeded", "run.abruzzi.io/good", WAIT))
    await world.steps(run_id)
    await kubectl("wait", "--for=condition=Running", "run.abruzzi.io/good", WAIT)
    assert not waits.done()
    await world.end(f"{run_id}-only-1")
    assert await waits == "run.abruzzi.io/good condition met\n"
    heading, row = (await kubectl("get", "runs.abruzzi.io", "good")).splitlines()
    assert heading.split() == ["NAME", "STATE", "STAGE", "PROGRESS", "AGE"]
    assert row.split()[:4] == ["good", "Succeeded", "only", "100%"]
    thing = await kubectl.get("good")
    assert thing["status"]["observedGeneration"] == thing["metadata"]["generation"] == 1


async def test_a_bad_recipe_says_line_key_and_remedy_to_kubectl(objects: Objects, kubectl: Shell) -> None:
    await kubectl.apply("bad", recipe=ONE_STAGE.replace("command", "comand"))
    await kubectl("wait", "--for=condition=Accepted=False", "run.abruzzi.io/bad", WAIT)
    status, reason, message = condition(dict(await kubectl.get("bad")), "Accepted")
    assert (status, reason) == ("False", "RecipeInvalid")
    assert "recipe.toml:8:1: stage.only.container.comand" in message
    assert "Did you mean 'command'?" in message


async def test_a_namespace_that_nobody_allowed_is_refused(objects: Objects, kubectl: Shell) -> None:
    await kubectl("apply", "-n", "closed", "-f", "-", text=yaml.safe_dump(run("shy", where="closed")))
    await kubectl("wait", "-n", "closed", "--for=condition=Accepted=False", "run.abruzzi.io/shy", WAIT)
    said = await kubectl("get", "-n", "closed", "run.abruzzi.io", "shy", "-o", "jsonpath={.status.message}")
    assert "kubectl label namespace closed abruzzi.io/project=PROJECT" in said


async def test_only_cancel_can_be_changed_and_it_cannot_be_taken_back(objects: Objects, world, kubectl: Shell) -> None:
    await kubectl.apply("fixed", set={"stage.only.seed": "1"})
    await kubectl("wait", "--for=condition=Accepted", "run.abruzzi.io/fixed", WAIT)

    async def patched(spec: dict[str, Any]) -> str:
        return await kubectl.refused(
            "patch", "run.abruzzi.io", "fixed", "--type=merge", "-p", json.dumps({"spec": spec})
        )

    assert "recipe cannot be changed: another recipe is another run" in await patched({"recipe": "version = 1"})
    assert "set cannot be changed" in await patched({"set": {"stage.only.seed": "2"}})
    assert "set cannot be changed" in await patched({"set": None})
    assert "project cannot be changed" in await patched({"project": "default"})
    assert 'unknown field "spec.recipes"' in await kubectl.refused(
        "apply", "-f", "-", text=yaml.safe_dump(run("odd", recipes="x"))
    )
    await kubectl("patch", "run.abruzzi.io", "fixed", "--type=merge", "-p", '{"spec": {"cancel": true}}')
    run_id = (await kubectl.get("fixed"))["status"]["runId"]
    await kubectl("wait", "--for=jsonpath={.status.phase}=Cancelling", "run.abruzzi.io/fixed", WAIT)
    await world.steps(run_id)
    await kubectl("wait", "--for=condition=Failed", "run.abruzzi.io/fixed", WAIT)
    assert condition(dict(await kubectl.get("fixed")), "Failed")[1] == "Cancelled"
    assert "cancel cannot be taken back" in await patched({"cancel": False})
    assert "cancel cannot be taken back" in await patched({"cancel": None})


async def test_a_deleted_run_goes_at_once_and_is_cancelled(objects: Objects, world, kubectl: Shell) -> None:
    await kubectl.apply("short")
    await kubectl("wait", "--for=condition=Accepted", "run.abruzzi.io/short", WAIT)
    run_id = (await kubectl.get("short"))["status"]["runId"]
    await kubectl("delete", "run.abruzzi.io", "short", WAIT)
    assert "NotFound" in await kubectl.refused("get", "run.abruzzi.io", "short")
    async with asyncio.timeout(SECONDS):
        while (await world.get(run_id)).state != "cancelling":
            await asyncio.sleep(0.05)


async def test_kubectl_explains_each_field(server: ApiServer, kubectl: Shell) -> None:
    assert "A mistake in it becomes the condition Accepted=False" in " ".join(
        (await kubectl("explain", "run.spec.recipe")).split()
    )
    for path in ("spec.set", "spec.cancel", "spec.project", "status.runId", "status.stages", "status.conditions"):
        said = (await kubectl("explain", f"run.{path}")).partition("DESCRIPTION:")[2].partition("FIELDS:")[0].strip()
        assert said not in ("", "<empty>"), path
