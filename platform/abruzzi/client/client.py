"""The SDK: `Client().runs.submit(...)`. One noun of the API is one attribute; answers are abruzzi.contracts.resources.

from abruzzi.client import Client

client = Client()                                  # the platform that `abruzzi up` started, or ABRUZZI_URL and ABRUZZI_TOKEN
run = client.runs.submit(open("recipes/tiny.toml").read())
run = client.runs.wait(run.id)
client.metrics.series(run.id, ["train/loss"])
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse

from abruzzi.client.evaluations import Evaluations
from abruzzi.client.nodes import Nodes
from abruzzi.client.notifications import Notifications
from abruzzi.client.pools import Pools
from abruzzi.client.profile import resolve_profile
from abruzzi.client.transport import Transport, Unavailable, raise_problem
from abruzzi.client.usage import Usage
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.dataset import DatasetOut, ReviewOut, RowOut, Verdict
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.notification import ExportOut
from abruzzi.contracts.resources import (
    ArtifactOut,
    AttemptOut,
    EventOut,
    LogLine,
    LogPage,
    MetricKeyOut,
    Resource,
    RunOut,
    RunSummary,
    SeriesOut,
    TokenCreated,
    TokenOut,
)
from abruzzi.contracts.safety_matrix import RedteamOut
from abruzzi.contracts.states import ArtifactKind, Role
from abruzzi.contracts.why import WhyOut


class _SeriesList(Resource):
    items: list[SeriesOut]


class _KeyList(Resource):
    items: list[MetricKeyOut]


class _ArtifactList(Resource):
    items: Sequence[ArtifactOut]


class Client:
    """A connection to one platform. Usable as a context manager."""

    def __init__(self, url: str | None = None, token: str | None = None, *, retry_seconds: float = 30.0) -> None:
        self.profile = resolve_profile(url, token)
        self.transport = Transport(self.profile, retry_seconds=retry_seconds)
        self.runs = Runs(self.transport)
        self.metrics = Metrics(self.transport)
        self.logs = Logs(self.transport)
        self.artifacts = Artifacts(self.transport)
        self.tokens = Tokens(self.transport)
        self.recipes = Recipes(self.transport)
        self.notifications = Notifications(self.transport)
        self.pools = Pools(self.transport)
        self.nodes = Nodes(self.transport)
        self.usage = Usage(self.transport)
        self.evaluations = Evaluations(self.transport)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    def run_page(self, run_id: str) -> str:
        """Address of a run in the dashboard."""
        return f"{self.profile.url}/runs/{run_id}"


class Runs:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def submit(
        self, recipe_toml: str, overrides: Mapping[str, str] | None = None, *, name: str | None = None
    ) -> RunOut:
        """Raises AbruzziError `recipe_invalid` whose `errors` hold every mistake."""
        return self._http.post(
            RunOut, "runs", {"recipe_toml": recipe_toml, "overrides": dict(overrides or {}), "name": name}
        )

    def get(self, run_id: str) -> RunOut:
        return self._http.get(RunOut, f"runs/{run_id}")

    def list(self, *, state: Sequence[str] = (), q: str | None = None) -> Iterator[RunSummary]:
        return self._http.pages(RunSummary, "runs", state=list(state) or None, q=q)

    def cancel(self, run_id: str) -> RunOut:
        return self._http.post(RunOut, f"runs/{run_id}/cancel")

    def retry(self, run_id: str, stage_id: str | None = None) -> RunOut:
        return self._http.post(RunOut, f"runs/{run_id}/retry", {"stage_id": stage_id})

    def override_gate(self, run_id: str, stage_id: str, reason: str) -> RunOut:
        """Let a stage start although its gate does not hold. For maintainers."""
        return self._http.post(RunOut, f"runs/{run_id}/gates/{stage_id}/override", {"reason": reason})

    def branch(
        self,
        run_id: str,
        artifact_id: str,
        overrides: Mapping[str, str] | None = None,
        *,
        recipe_toml: str | None = None,
        name: str | None = None,
    ) -> RunOut:
        """A new run that goes on from a checkpoint of `run_id`."""
        body = {
            "artifact_id": artifact_id,
            "overrides": dict(overrides or {}),
            "recipe_toml": recipe_toml,
            "name": name,
        }
        return self._http.post(RunOut, f"runs/{run_id}/branch", body)

    def export(self, run_id: str) -> ExportOut:
        """Ask for an export to the object store; it appears among the run's artifacts."""
        return self._http.post(ExportOut, f"runs/{run_id}/export")

    def why(self, run_id: str) -> WhyOut:
        return self._http.get(WhyOut, f"runs/{run_id}/why")

    def attempt(self, attempt_id: str) -> AttemptOut:
        return self._http.get(AttemptOut, f"attempts/{attempt_id}")

    def events(self, run_id: str) -> Iterator[EventOut]:
        return self._http.pages(EventOut, "events", run=run_id)

    def wait(
        self, run_id: str, *, timeout_seconds: float | None = None, on_change: Callable[[RunOut], None] | None = None
    ) -> RunOut:
        """The run once it has ended. Survives restarts of the platform. Raises AbruzziError `timeout`."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        for run in self.watch(run_id, deadline=deadline):
            if on_change:
                on_change(run)
            if run.state.is_terminal:
                return run
        raise AbruzziError(
            "timeout", f"Run {run_id} did not end within {timeout_seconds:.0f} s.", hint=f"`abruzzi runs why {run_id}`"
        )

    def watch(self, run_id: str, *, deadline: float | None = None, poll_seconds: float = 1.0) -> Iterator[RunOut]:
        """The run now and at each look, until it has ended or `deadline` (time.monotonic) has passed."""
        while deadline is None or time.monotonic() < deadline:
            try:
                run = self.get(run_id)
            except Unavailable:
                if deadline is None:
                    raise
                time.sleep(poll_seconds)
                continue
            yield run
            if run.state.is_terminal:
                return
            time.sleep(poll_seconds)


class Metrics:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def keys(self, run_id: str) -> list[MetricKeyOut]:
        return self._http.get(_KeyList, f"runs/{run_id}/metrics/keys").items

    def series(
        self,
        run_id: str,
        keys: Sequence[str],
        *,
        stage_id: str | None = None,
        max_points: int = 1000,
        from_step: int | None = None,
        to_step: int | None = None,
    ) -> list[SeriesOut]:
        """One item an attempt and key. Above `max_points` steps come as buckets with exact extrema."""
        query = {"run": run_id, "key": list(keys), "stage": stage_id, "max_points": max_points}
        return self._http.get(_SeriesList, "metrics", **query, from_step=from_step, to_step=to_step).items


class Logs:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def page(
        self,
        attempt_id: str,
        *,
        rank: int = 0,
        offset: int | None = None,
        limit: int = 1000,
        tail: int | None = None,
        q: str | None = None,
    ) -> LogPage:
        return self._http.get(
            LogPage, "logs", attempt=attempt_id, rank=rank, offset=offset, limit=limit, tail=tail, q=q
        )

    def follow(
        self, attempt_id: str, *, rank: int = 0, offset: int = 0, poll_seconds: float = 0.5
    ) -> Iterator[LogLine]:
        """Lines as they come, until the attempt has ended."""
        while True:
            page = self.page(attempt_id, rank=rank, offset=offset)
            yield from page.lines
            moved, offset = page.next_offset != offset, page.next_offset
            if page.complete and page.next_offset >= page.end_offset:
                return
            if not moved:
                time.sleep(poll_seconds)


class Artifacts:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def list(
        self, run_id: str, *, stage_id: str | None = None, kind: ArtifactKind | None = None
    ) -> Iterator[ArtifactOut]:
        return self._http.pages(ArtifactOut, "artifacts", run=run_id, stage=stage_id, kind=kind.value if kind else None)

    def get(self, artifact_id: str) -> ArtifactOut:
        return self._http.get(ArtifactOut, f"artifacts/{artifact_id}")

    def lineage(self, artifact_id: str) -> Sequence[ArtifactOut]:
        """Everything that it was made from, oldest first."""
        return self._http.get(_ArtifactList, f"artifacts/{artifact_id}/lineage").items

    def manifest(self, artifact_id: str) -> Manifest:
        return self._http.get(Manifest, f"artifacts/{artifact_id}/manifest")

    def rows(
        self,
        artifact_id: str,
        noun: str,
        *,
        fate: Sequence[str] = (),
        q: str = "",
        where: Sequence[str] = (),
        review: str | None = None,
        fields: Sequence[str] = (),
        cut: int | None = None,
    ) -> Iterator[RowOut]:
        """Rows such as `rewrites` or `trajectories`, as they are asked for. `where`: conditions like `domain:code`; `review`: none, accept or
        reject; `cut`: longest text, in characters."""
        query = {
            "noun": noun,
            "fate": list(fate) or None,
            "q": q or None,
            "where": list(where) or None,
            "review": review,
        }
        return self._http.pages(RowOut, f"artifacts/{artifact_id}/rows", **query, fields=list(fields) or None, cut=cut)

    def dataset(self, artifact_id: str) -> DatasetOut:
        """Its nouns, with how many rows were kept and rejected."""
        return self._http.get(DatasetOut, f"artifacts/{artifact_id}/facts")

    def facts(self, artifact_id: str, noun: str) -> dict[str, Any]:
        """`<noun>.json` of the artifact: what it says of its rows."""
        return self._http.request("GET", f"artifacts/{artifact_id}/facts/{noun}").json()

    def redteam(self, artifact_id: str) -> RedteamOut:
        """The safety matrix of a redteam artifact, with what people have said of its rows."""
        return self._http.get(RedteamOut, f"redteam/{artifact_id}")

    def reviews(self, artifact_id: str) -> Iterator[ReviewOut]:
        return self._http.pages(ReviewOut, f"artifacts/{artifact_id}/reviews", limit=500)

    def review(self, artifact_id: str, row_id: str, verdict: Verdict, note: str = "") -> ReviewOut:
        """Accept or reject a row. The last word counts."""
        body = {"row_id": row_id, "verdict": verdict.value, "note": note}
        return self._http.put(ReviewOut, f"artifacts/{artifact_id}/reviews", body)

    def take_back_review(self, artifact_id: str, row_id: str) -> None:
        self._http.delete(f"artifacts/{artifact_id}/reviews", row_id=row_id)

    def read(self, artifact_id: str, path: str) -> bytes:
        return self._http.request("GET", f"artifacts/{artifact_id}/files/{path}").content

    def pull(self, artifact_id: str, folder: Path, *, on_file: Callable[[str, int], None] | None = None) -> Manifest:
        """Download all files below `folder` and check every digest. A file that is there and right is left alone."""
        manifest = self.manifest(artifact_id)
        for entry in manifest.files:
            target = folder / entry.path
            if not target.resolve().is_relative_to(folder.resolve()):
                raise AbruzziError("unsafe_path", f"The artifact names a file outside its folder: {entry.path!r}.")
            if not (target.exists() and _sha256(target) == entry.digest):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._download(artifact_id, entry.path, entry.digest, target)
            if on_file:
                on_file(entry.path, entry.size_bytes)
        return manifest

    def _download(self, artifact_id: str, path: str, digest: str, target: Path) -> None:
        partial = target.with_name(target.name + ".part")
        with self._http.http.stream(
            "GET", f"artifacts/{artifact_id}/files/{path}", timeout=httpx.Timeout(60.0)
        ) as response:
            if not response.is_success:
                response.read()
                raise_problem(response)
            with partial.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        if _sha256(partial) != digest:
            partial.unlink()
            raise AbruzziError(
                "corrupt_file",
                f"{path} does not hash to what the manifest says.",
                hint="Pull again; if it repeats, the stored file is damaged.",
            )
        partial.rename(target)


class Tokens:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def list(self) -> Iterator[TokenOut]:
        return self._http.pages(TokenOut, "tokens")

    def create(self, name: str, role: Role, *, days: float = 30.0) -> TokenCreated:
        return self._http.post(TokenCreated, "tokens", {"name": name, "role": role.value, "days": days})

    def revoke(self, token_id: str) -> None:
        self._http.delete(f"tokens/{token_id}")


class Recipes:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def plan(
        self,
        recipe_toml: str,
        overrides: Mapping[str, str] | None = None,
        *,
        pool: str | None = None,
        nodes: int | None = None,
        sweep: bool = False,
        timeline: bool = False,
        price: float | None = None,
    ) -> dict[str, Any]:
        """The dry run against the platform's pools as they are now. `pool`: every stage there. `nodes`: of pre-training stages, instead of the recipe's
        ranks. `sweep`: other layouts of the same ranks, too. `timeline`: the planned schedule's spans. `price`: of a GPU-hour."""
        body = {"recipe_toml": recipe_toml, "overrides": dict(overrides or {}), "pool": pool}
        body |= {"nodes": nodes, "sweep": sweep, "timeline": timeline, "price": price}
        return self._http.request("POST", "plan", json=body).json()


def stream_run(client: Client, run_id: str, last_event_id: str | None = None) -> Iterator[tuple[str, str, str]]:
    """(event, data, id) of the run's live stream; the caller reconnects with the last id."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    timeout = httpx.Timeout(5.0, read=45.0)
    with connect_sse(client.transport.http, "GET", f"runs/{run_id}/stream", headers=headers, timeout=timeout) as source:
        for event in source.iter_sse():
            if event.event != "ping":
                yield event.event, event.data, event.id


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
