"""The adapter for checkpoint-engine 0.4.2, against a stand-in with the signatures of the installed package, which is read but never imported: it needs a GPU."""

import ast
import inspect
import os
import sys
import threading
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from weights_lab import SECONDS, Parameters, sums, weights

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.weights.group import WeightUpdateFailed
from abruzzi_jobs.rl.weights.package import PackageWorker, receive

HANDLE = "ipc://@checkpoint-engine-GPU-0-0.sock"
BEFORE_RELEASE = 4
"""Parameters in a bucket of the stand-in."""


class Package:
    """Stands for the package: one process, one engine, no GPU. What the server sends goes to the engine by a call."""

    def __init__(self):
        self.calls, self.buckets = [], {}
        package = self

        class ParameterServer:
            def __init__(
                self,
                *,
                rank=None,
                world_size=None,
                auto_pg=True,
                gpu_count=None,
                mem_fraction=None,
                master_addr=None,
                master_port=None,
            ):
                package.calls.append(("init", rank or int(os.environ["RANK"]), world_size, master_addr, master_port))
                self._pool = {}

            def register_checkpoint(
                self,
                checkpoint_name,
                *,
                files=None,
                named_tensors=None,
                use_shared_memory_pool=False,
                use_inplace_pin_memory=True,
            ):
                assert checkpoint_name not in self._pool
                assert not use_inplace_pin_memory
                self._pool[checkpoint_name] = {name: tensor.clone() for name, tensor in named_tensors.items()}
                package.calls.append(("register", checkpoint_name))

            def unregister_checkpoint(self, checkpoint_name, force=False):
                del self._pool[checkpoint_name]
                package.calls.append(("unregister", checkpoint_name))

            def gather_metas(self, checkpoint_name):
                package.calls.append(("gather", checkpoint_name))

            def update(self, checkpoint_name, req_func, *, timeout=None, ranks=None):
                package.calls.append(("update", checkpoint_name))
                package.buckets[HANDLE] = list(self._pool[checkpoint_name].items())
                thread = threading.Thread(target=req_func, args=([("GPU-0", HANDLE)],))
                thread.start()
                thread.join()

        self.ParameterServer = ParameterServer

    def update_weights_from_ipc(self, zmq_ctx, zmq_handle, device_id, *, run, post_hook=None):
        items = self.buckets[zmq_handle]
        for at in range(0, len(items), BEFORE_RELEASE):
            run(items[at : at + BEFORE_RELEASE])
        if post_hook is not None:
            post_hook()


def worker_of(package, request):
    return PackageWorker(
        request, rank=0, world_size=1, master_addr="127.0.0.1", master_port=1, deadline_seconds=SECONDS, package=package
    )


def feeding(package, sink):
    """A request that feeds `sink`, as an engine's process would when it is asked to."""

    def request(handles, version, sums):
        ((_, handle),) = handles
        receive(sink, handle, 0, version, sums, package=package, context=object())

    return request


def test_an_engine_serves_each_version_and_old_ones_are_unregistered(monkeypatch):
    monkeypatch.setenv("RANK", "7")
    package, sink = Package(), Parameters(weights(0))
    worker = worker_of(package, feeding(package, sink))
    for number in (1, 2):
        worker.register(number, weights(number))
        report = worker.update()
        assert (sink.version, sink.sums()) == (number, sums(weights(number)))
    assert report.transport == "checkpoint-engine"
    assert package.calls == [
        ("init", 0, 1, "127.0.0.1", 1),
        ("register", "version-1"), ("gather", "version-1"), ("update", "version-1"),
        ("unregister", "version-1"), ("register", "version-2"), ("gather", "version-2"), ("update", "version-2"),
    ]  # fmt: skip
    assert os.environ["RANK"] == "7"


def test_bytes_that_change_on_the_way_are_found_and_both_sides_hear_of_it():
    package, sink = Package(), Parameters(weights(0))

    def request(handles, version, sums):
        package.buckets[HANDLE][2][1][0] += 1
        feeding(package, sink)(handles, version, sums)

    worker = worker_of(package, request)
    worker.register(1, weights(1))
    with pytest.raises(WeightUpdateFailed, match=r"checksums of 1 of 17 parameters differ, first layers\.2\.weight"):
        worker.update()
    assert (sink.version, sink.sums()) == (0, sums(weights(0)))
    with pytest.raises(ValueError, match="has not failed"):
        worker.update()


def test_an_engine_that_never_answers_is_an_error_at_the_deadline():
    package, answer = Package(), threading.Event()
    worker = PackageWorker(
        lambda handles, version, sums: answer.wait(SECONDS), rank=0, world_size=1, master_addr="h", master_port=1,
        deadline_seconds=0.2, package=package,
    )  # fmt: skip
    worker.register(1, weights(1))
    with pytest.raises(WeightUpdateFailed, match=r"not done after 0\.2 s"):
        worker.update()
    answer.set()


def test_versions_only_grow_on_both_sides():
    package, sink = Package(), Parameters(weights(5), version=5)
    worker = worker_of(package, feeding(package, sink))
    worker.register(5, weights(5))
    with pytest.raises(ValueError, match="version 5 is not newer than 5"):
        worker.register(5, weights(5))
    with pytest.raises(WeightUpdateFailed, match="version 5 is not newer than 5, which is served"):
        worker.update()
    assert sink.version == 5


def test_without_a_gpu_the_package_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "checkpoint_engine", None)
    with pytest.raises(AbruzziError, match=r"Install abruzzi-jobs\[checkpoint-engine\] on a machine with GPUs"):
        PackageWorker(lambda *_: None, rank=0, world_size=1, master_addr="h", master_port=1)


def signatures(body):
    """(positional, keyword-only) names of functions, by name."""
    return {
        node.name: ([a.arg for a in node.args.args if a.arg != "self"], [a.arg for a in node.args.kwonlyargs])
        for node in body
        if isinstance(node, ast.FunctionDef)
    }


def test_the_stand_in_has_the_signatures_of_the_installed_package():
    spec = find_spec("checkpoint_engine")
    assert spec is not None
    assert version("checkpoint-engine") == "0.4.2"
    server, engine = (ast.parse((Path(spec.origin).parent / name).read_text()).body for name in ("ps.py", "worker.py"))
    (server_class,) = [node for node in server if isinstance(node, ast.ClassDef) and node.name == "ParameterServer"]
    theirs = signatures(server_class.body) | signatures(engine)
    ours = Package()
    methods = ["__init__", "register_checkpoint", "unregister_checkpoint", "gather_metas", "update"]
    for function in (ours.update_weights_from_ipc, *(getattr(ours.ParameterServer, name) for name in methods)):
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
        assert theirs[function.__name__] == (
            [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD],
            [p.name for p in parameters if p.kind is p.KEYWORD_ONLY],
        )


def test_our_transports_never_import_the_package():
    import abruzzi_jobs.rl.weights.late
    import abruzzi_jobs.rl.weights.startup

    assert abruzzi_jobs.rl.weights.late.PullServer
    assert abruzzi_jobs.rl.weights.startup.start_from
    assert "checkpoint_engine" not in sys.modules
