"""A real Kubernetes on this machine, for tests and demonstrations.

python -m cluster up --with kueue,training-operator --simulated-nodes 100
eval "$(python -m cluster env)"; kubectl get nodes
python -m cluster status
python -m cluster down
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from cluster import base_images as images
from cluster import installs, simulated_nodes, teardown
from cluster.binaries import TOOLS, Toolbox
from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from cluster.local_cluster import NEEDED_TOOLS, PARTS, LocalCluster


def main(words: list[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    try:
        return _COMMANDS[arguments.command](arguments)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="start it, or add to the one that runs")
    starting.add_argument(
        "--with", dest="operators", default="", metavar="A,B", help=f"operators: {', '.join(installs.OPERATORS)}"
    )
    starting.add_argument(
        "--simulated-nodes", type=int, default=0, metavar="N", help="simulated nodes with 8 GPUs each"
    )
    commands.add_parser("down", help="end it and remove all that it made")
    commands.add_parser("status", help="what runs, as JSON; exit code 1 when it is not up")
    commands.add_parser("env", help="shell lines that make kubectl talk to it")
    commands.add_parser("base-images", help="fill the cache with what image builds start from (a minute)")
    building = commands.add_parser(
        "build-tools", help="build the binaries that are missing (half an hour for all on two cores)"
    )
    building.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default: all missing ones but kube-router, of {', '.join(TOOLS)}"
    )
    return parser


def up(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    cluster = LocalCluster(tools=Toolbox(allow_build=True))
    was_started = cluster.up()
    kubectl = _kubectl(cluster)
    operators = [name for name in arguments.operators.split(",") if name]
    installs.install(kubectl, cluster.layout, cluster.tools, operators)
    if arguments.simulated_nodes:
        simulated_nodes.add(cluster.layout, cluster.tools, arguments.simulated_nodes)
    print(
        f"{'Up' if was_started else 'It ran already;'} after {time.monotonic() - began:.0f} s. Use it with:",
        file=sys.stderr,
    )
    return env(arguments)


def down(_: argparse.Namespace) -> int:
    LocalCluster().down()
    return 0


def status(_: argparse.Namespace) -> int:
    cluster = LocalCluster()
    layout = cluster.layout
    parts = {name: cluster.component(name).pid for name in PARTS}
    answer = {
        "up": cluster.is_up(),
        "state": str(layout.state),
        "parts": parts,
        "left": [] if cluster.is_up() else teardown.leftovers(layout),
    }
    print(json.dumps(answer, indent=2))
    return 0 if cluster.is_up() else 1


def env(_: argparse.Namespace) -> int:
    cluster = LocalCluster()
    if not cluster.is_up():
        raise ClusterError("no cluster runs here; `make cluster` starts one")
    print(f"export KUBECONFIG={cluster.layout.kubeconfig()}")
    return 0


def build_tools(arguments: argparse.Namespace) -> int:
    tools = Toolbox(allow_build=True)
    usual = [name for name, tool in TOOLS.items() if not tool.only_when_asked]
    for name in arguments.names or tools.missing([*NEEDED_TOOLS, *usual]):
        began = time.monotonic()
        print(f"{tools.path(name)} ({time.monotonic() - began:.0f} s)", flush=True)
    return 0


def base_images(_: argparse.Namespace) -> int:
    images.debian_layer()
    images.node_folder()
    return 0


def _kubectl(cluster: LocalCluster) -> Kubectl:
    return Kubectl(cluster.tools.path("kubectl"), cluster.layout.kubeconfig())


_COMMANDS = {
    "up": up,
    "down": down,
    "status": status,
    "env": env,
    "build-tools": build_tools,
    "base-images": base_images,
}

if __name__ == "__main__":
    sys.exit(main())
