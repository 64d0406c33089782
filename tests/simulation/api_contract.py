"""What every `Api` does, the fake one and the one that speaks to a real apiserver: the promises that executor and controllers rest on.

A concrete suite derives from ApiContract and gives the fixture `ground`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from abruzzi_operators.kubernetes.api import Api, Event
from abruzzi_operators.kubernetes.errors import AlreadyExists, Conflict, Expired, Invalid, NotFound, NotServed
from abruzzi_operators.kubernetes.resources import CONFIG_MAPS, JOBS, PODS, Object, Resource

GHOSTS = Resource("example.test", "v1", "ghosts", "Ghost")


@dataclass(frozen=True)
class Ground:
    api: Api
    namespace: str
    """Empty at the start of each test."""

    def config(self, name: str, data: dict[str, str] | None = None, **metadata: Any) -> Object:
        body = CONFIG_MAPS.new(name, self.namespace, data=data or {"a": "1"})
        body["metadata"] |= metadata
        return body

    def pod(self, name: str, **spec: Any) -> Object:
        return PODS.new(name, self.namespace, spec={"containers": [{"name": "main", "image": "none"}], **spec})

    async def read(self, name: str, resource: Resource = CONFIG_MAPS) -> Object:
        return await self.api.get(resource, name, namespace=self.namespace)

    async def names(self, selector: str = "", resource: Resource = CONFIG_MAPS) -> list[str]:
        found = await self.api.list(resource, namespace=self.namespace, label_selector=selector)
        return sorted(thing["metadata"]["name"] for thing in found)

    async def version(self, resource: Resource = CONFIG_MAPS) -> str:
        return (await self.api.page(resource, namespace=self.namespace, limit=1)).resource_version

    async def watched(
        self, since: str, count: int, resource: Resource = CONFIG_MAPS, **selectors: str
    ) -> Sequence[Event]:
        """The next `count` events of objects."""
        events: list[Event] = []
        async with aclosing(
            self.api.watch(resource, namespace=self.namespace, resource_version=since, timeout_seconds=30, **selectors)  # type: ignore[type-var]
        ) as stream:
            async for event in stream:
                events += [event] if event.kind not in ("OPENED", "BOOKMARK") else []
                if len(events) == count:
                    break
        return events


def kinds_and_names(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(event.kind, event.object["metadata"]["name"]) for event in events]


class ApiContract:
    async def test_a_created_object_is_there_with_identity_and_version(self, ground: Ground) -> None:
        created = await ground.api.create(CONFIG_MAPS, ground.config("one"))
        assert created["data"] == {"a": "1"}
        assert {"uid", "resourceVersion", "creationTimestamp"} <= set(created["metadata"])
        assert await ground.read("one") == created

    async def test_a_second_object_of_a_name_is_refused(self, ground: Ground) -> None:
        await ground.api.create(CONFIG_MAPS, ground.config("one"))
        with pytest.raises(AlreadyExists, match="one"):
            await ground.api.create(CONFIG_MAPS, ground.config("one", {"a": "2"}))
        assert (await ground.read("one"))["data"] == {"a": "1"}

    async def test_what_is_not_there_is_not_found(self, ground: Ground) -> None:
        with pytest.raises(NotFound, match="one"):
            await ground.read("one")
        with pytest.raises(NotFound, match="one"):
            await ground.api.delete(CONFIG_MAPS, "one", namespace=ground.namespace)
        with pytest.raises(NotFound, match="one"):
            await ground.api.patch(CONFIG_MAPS, "one", {"data": None}, namespace=ground.namespace)

    async def test_a_kind_that_the_cluster_does_not_know_says_so(self, ground: Ground) -> None:
        with pytest.raises(NotServed, match=r"ghosts\.example\.test"):
            await ground.api.list(GHOSTS, namespace=ground.namespace)
        with pytest.raises(NotServed):
            await ground.api.create(GHOSTS, GHOSTS.new("casper", ground.namespace))
        with pytest.raises(NotServed):
            await ground.api.get_path("/apis/example.test/v1")

    async def test_nothing_is_created_in_a_namespace_that_does_not_exist(self, ground: Ground) -> None:
        with pytest.raises(NotFound, match="nowhere"):
            await ground.api.create(CONFIG_MAPS, CONFIG_MAPS.new("one", "nowhere"))

    async def test_an_object_of_another_kind_is_invalid(self, ground: Ground) -> None:
        with pytest.raises(Invalid):
            await ground.api.create(CONFIG_MAPS, {**ground.config("one"), "kind": "Secret"})

    async def test_a_dry_run_changes_nothing(self, ground: Ground) -> None:
        await ground.api.create(CONFIG_MAPS, ground.config("one"), dry_run=True)
        await ground.api.apply(CONFIG_MAPS, ground.config("two"), dry_run=True)
        assert await ground.names() == []

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("run=a", ["one"]),
            ("run!=a", ["three", "two"]),
            ("run in (a, b)", ["one", "two"]),
            ("run notin (a)", ["three", "two"]),
            ("run", ["one", "two"]),
            ("!run", ["three"]),
            ("run in (a,b),stage=x", ["two"]),
        ],
    )
    async def test_labels_select(self, ground: Ground, selector: str, expected: list[str]) -> None:
        for name, labels in {"one": {"run": "a"}, "two": {"run": "b", "stage": "x"}, "three": {}}.items():
            await ground.api.create(CONFIG_MAPS, ground.config(name, labels=labels))
        assert await ground.names(selector) == expected

    async def test_fields_select(self, ground: Ground) -> None:
        for name in ("one", "two"):
            await ground.api.create(PODS, ground.pod(name, nodeName=f"node-{name}"))
        found = await ground.api.list(PODS, namespace=ground.namespace, field_selector="spec.nodeName=node-two")
        assert [pod["metadata"]["name"] for pod in found] == ["two"]

    async def test_pages_show_one_moment(self, ground: Ground) -> None:
        for name in "abcde":
            await ground.api.create(CONFIG_MAPS, ground.config(name))
        first = await ground.api.page(CONFIG_MAPS, namespace=ground.namespace, limit=2)
        await ground.api.create(CONFIG_MAPS, ground.config("bb"))
        await ground.api.delete(CONFIG_MAPS, "d", namespace=ground.namespace)
        second = await ground.api.page(
            CONFIG_MAPS, namespace=ground.namespace, limit=2, continue_token=first.continue_token
        )
        third = await ground.api.page(
            CONFIG_MAPS, namespace=ground.namespace, limit=2, continue_token=second.continue_token
        )
        pages = (first, second, third)
        assert [thing["metadata"]["name"] for page in pages for thing in page.items] == list("abcde")
        assert [bool(page.continue_token) for page in pages] == [True, True, False]
        assert len({page.resource_version for page in pages}) == 1

    async def test_a_list_of_a_past_version_shows_the_past(self, ground: Ground) -> None:
        await ground.api.create(CONFIG_MAPS, ground.config("one"))
        then = await ground.version()
        await ground.api.delete(CONFIG_MAPS, "one", namespace=ground.namespace)
        await ground.api.create(CONFIG_MAPS, ground.config("two"))
        page = await ground.api.page(CONFIG_MAPS, namespace=ground.namespace, resource_version=then)
        assert [thing["metadata"]["name"] for thing in page.items] == ["one"]
        assert page.resource_version == then

    async def test_apply_creates_changes_and_repeats_without_effect(self, ground: Ground) -> None:
        created = await ground.api.apply(CONFIG_MAPS, ground.config("one", {"a": "1", "b": "2"}))
        assert created["data"] == {"a": "1", "b": "2"}
        again = await ground.api.apply(CONFIG_MAPS, ground.config("one", {"a": "1", "b": "2"}))
        assert again["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
        changed = await ground.api.apply(CONFIG_MAPS, ground.config("one", {"a": "3", "b": "2"}))
        assert changed["data"] == {"a": "3", "b": "2"}
        assert changed["metadata"]["uid"] == created["metadata"]["uid"]

    async def test_apply_removes_what_it_no_longer_names_and_keeps_what_others_set(self, ground: Ground) -> None:
        await ground.api.apply(CONFIG_MAPS, ground.config("one", {"a": "1", "b": "2"}, labels={"mine": "yes"}))
        await ground.api.patch(CONFIG_MAPS, "one", {"data": {"theirs": "9"}}, namespace=ground.namespace)
        result = await ground.api.apply(CONFIG_MAPS, ground.config("one", {"a": "1"}))
        assert result["data"] == {"a": "1", "theirs": "9"}
        assert "labels" not in result["metadata"]

    async def test_apply_without_force_does_not_take_a_field_of_somebody_else(self, ground: Ground) -> None:
        await ground.api.apply(CONFIG_MAPS, ground.config("one", {"a": "1"}))
        await ground.api.patch(CONFIG_MAPS, "one", {"data": {"a": "theirs"}}, namespace=ground.namespace)
        with pytest.raises(Conflict, match="conflict"):
            await ground.api.apply(CONFIG_MAPS, ground.config("one", {"a": "2"}), force=False)
        assert (await ground.read("one"))["data"] == {"a": "theirs"}
        assert (await ground.api.apply(CONFIG_MAPS, ground.config("one", {"a": "2"})))["data"] == {"a": "2"}

    async def test_apply_merges_containers_by_name(self, ground: Ground) -> None:
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}}
        job = JOBS.new("one", ground.namespace, spec={"suspend": True, "template": template})
        await ground.api.apply(JOBS, job)
        result = await ground.api.apply(JOBS, {**job, "spec": {**job["spec"], "suspend": False}})
        assert [container["name"] for container in result["spec"]["template"]["spec"]["containers"]] == ["main"]
        assert result["spec"]["suspend"] is False

    async def test_a_merge_patch_sets_removes_and_repeats_without_effect(self, ground: Ground) -> None:
        await ground.api.create(CONFIG_MAPS, ground.config("one", {"a": "1", "b": "2"}))
        patch = {"data": {"a": None, "c": "3"}}
        patched = await ground.api.patch(CONFIG_MAPS, "one", patch, namespace=ground.namespace)
        assert patched["data"] == {"b": "2", "c": "3"}
        again = await ground.api.patch(CONFIG_MAPS, "one", patch, namespace=ground.namespace)
        assert again["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"]

    async def test_a_patch_of_a_version_that_has_passed_is_a_conflict(self, ground: Ground) -> None:
        created = await ground.api.create(CONFIG_MAPS, ground.config("one"))
        patch = {"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}, "data": {"a": "2"}}
        await ground.api.patch(CONFIG_MAPS, "one", patch, namespace=ground.namespace)
        with pytest.raises(Conflict):
            await ground.api.patch(CONFIG_MAPS, "one", {**patch, "data": {"a": "3"}}, namespace=ground.namespace)
        assert (await ground.read("one"))["data"] == {"a": "2"}

    async def test_a_json_patch_whose_test_fails_changes_nothing(self, ground: Ground) -> None:
        await ground.api.create(CONFIG_MAPS, ground.config("one", {"a": "1"}))
        replace = {"op": "replace", "path": "/data/a", "value": "2"}
        with pytest.raises(Invalid):
            await ground.api.patch(
                CONFIG_MAPS, "one", [{"op": "test", "path": "/data/a", "value": "9"}, replace],
                namespace=ground.namespace, kind="json",
            )  # fmt: skip
        assert (await ground.read("one"))["data"] == {"a": "1"}
        done = await ground.api.patch(CONFIG_MAPS, "one", [replace], namespace=ground.namespace, kind="json")
        assert done["data"] == {"a": "2"}

    async def test_status_is_written_through_its_subresource_only(self, ground: Ground) -> None:
        created = await ground.api.create(PODS, {**ground.pod("one"), "status": {"phase": "Running"}})
        assert created["status"]["phase"] == "Pending"
        running = {"status": {"phase": "Running"}, "metadata": {"labels": {"seen": "no"}}}
        status = await ground.api.patch(PODS, "one", running, namespace=ground.namespace, subresource="status")
        assert status["status"]["phase"] == "Running"
        patch = {"status": {"phase": "Failed"}, "metadata": {"labels": {"seen": "yes"}}}
        both = await ground.api.patch(PODS, "one", patch, namespace=ground.namespace)
        assert (both["status"]["phase"], both["metadata"]["labels"]["seen"]) == ("Running", "yes")

    async def test_delete_with_another_objects_uid_deletes_nothing(self, ground: Ground) -> None:
        created = await ground.api.create(CONFIG_MAPS, ground.config("one"))
        with pytest.raises(Conflict, match="UID"):
            await ground.api.delete(
                CONFIG_MAPS, "one", namespace=ground.namespace, uid="00000000-dead-4000-8000-000000000000"
            )
        assert await ground.names() == ["one"]
        await ground.api.delete(CONFIG_MAPS, "one", namespace=ground.namespace, uid=created["metadata"]["uid"])
        assert await ground.names() == []

    async def test_a_finalizer_keeps_a_deleted_object_until_it_is_removed(self, ground: Ground) -> None:
        await ground.api.create(CONFIG_MAPS, ground.config("one", finalizers=["abruzzi.io/test"]))
        await ground.api.delete(CONFIG_MAPS, "one", namespace=ground.namespace)
        assert "deletionTimestamp" in (await ground.read("one"))["metadata"]
        await ground.api.patch(CONFIG_MAPS, "one", {"metadata": {"finalizers": None}}, namespace=ground.namespace)
        assert await ground.names() == []

    async def test_a_pod_on_a_node_leaves_with_grace_and_at_once_without(self, ground: Ground) -> None:
        await ground.api.create(PODS, ground.pod("one", nodeName="somewhere"))
        await ground.api.delete(PODS, "one", namespace=ground.namespace, grace_seconds=20)
        metadata = (await ground.read("one", PODS))["metadata"]
        assert metadata["deletionGracePeriodSeconds"] == 20
        assert "deletionTimestamp" in metadata
        await ground.api.delete(PODS, "one", namespace=ground.namespace, grace_seconds=0)
        assert await ground.names(resource=PODS) == []

    async def test_a_pod_without_a_node_or_with_an_end_leaves_at_once(self, ground: Ground) -> None:
        await ground.api.create(PODS, ground.pod("waiting"))
        await ground.api.create(PODS, ground.pod("ended", nodeName="somewhere"))
        await ground.api.patch(
            PODS, "ended", {"status": {"phase": "Failed"}}, namespace=ground.namespace, subresource="status"
        )
        for name in ("waiting", "ended"):
            await ground.api.delete(PODS, name, namespace=ground.namespace, grace_seconds=20)
        assert await ground.names(resource=PODS) == []

    async def test_a_watch_tells_everything_after_its_version_in_order(self, ground: Ground) -> None:
        await ground.api.create(CONFIG_MAPS, ground.config("before"))
        since = await ground.version()
        watching = asyncio.create_task(ground.watched(since, 4))
        await ground.api.create(CONFIG_MAPS, ground.config("one"))
        await ground.api.patch(CONFIG_MAPS, "one", {"data": {"a": "2"}}, namespace=ground.namespace)
        await ground.api.delete(CONFIG_MAPS, "one", namespace=ground.namespace)
        await ground.api.delete(CONFIG_MAPS, "before", namespace=ground.namespace)
        events = await watching
        assert kinds_and_names(events) == [
            ("ADDED", "one"),
            ("MODIFIED", "one"),
            ("DELETED", "one"),
            ("DELETED", "before"),
        ]
        assert events[2].object["data"] == {"a": "2"}, "the last state comes with the deletion"
        versions = [int(event.resource_version) for event in events]
        assert versions == sorted(set(versions)), "also a deletion has a version of its own"
        assert versions[0] > int(since)

    async def test_a_watch_from_the_past_tells_the_past(self, ground: Ground) -> None:
        since = await ground.version()
        await ground.api.create(CONFIG_MAPS, ground.config("one"))
        await ground.api.delete(CONFIG_MAPS, "one", namespace=ground.namespace)
        assert kinds_and_names(await ground.watched(since, 2)) == [("ADDED", "one"), ("DELETED", "one")]

    async def test_an_object_that_leaves_the_selection_is_deleted_for_its_watcher(self, ground: Ground) -> None:
        since = await ground.version()
        await ground.api.create(CONFIG_MAPS, ground.config("one", labels={"run": "a"}))
        await ground.api.create(CONFIG_MAPS, ground.config("other", labels={"run": "b"}))
        for run in ("b", "a"):
            await ground.api.patch(
                CONFIG_MAPS, "one", {"metadata": {"labels": {"run": run}}}, namespace=ground.namespace
            )
        events = await ground.watched(since, 3, label_selector="run=a")
        assert kinds_and_names(events) == [("ADDED", "one"), ("DELETED", "one"), ("ADDED", "one")]
        assert events[1].object["metadata"]["labels"] == {"run": "a"}, "with its last selected state"

    async def test_a_watch_ends_quietly_when_its_time_is_over(self, ground: Ground) -> None:
        since = await ground.version()
        stream = ground.api.watch(CONFIG_MAPS, namespace=ground.namespace, resource_version=since, timeout_seconds=1)
        kinds = [event.kind async for event in stream]
        assert kinds[0] == "OPENED"
        assert set(kinds[1:]) <= {"BOOKMARK"}

    async def test_history_that_was_compacted_is_expired(self, ground: Ground) -> None:
        since = await ground.version()
        await ground.api.create(CONFIG_MAPS, ground.config("one"))
        await self.compact(ground)
        with pytest.raises(Expired):
            await ground.watched(since, 1)

    async def compact(self, ground: Ground) -> None:
        raise NotImplementedError
