"""Lies in a box beside an owner's programs of services and makes the calls of a conversation from its beginning. Standard library only.

In: {classes: {name: module}, kept: {name: attributes}, config, steps: [[[function, arguments], …], …]}. Out: {results: [[text, …], …], state}.
"""

import importlib
import json
import os
import sys


def main():
    plan = json.load(sys.stdin)
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the programs print is no result
    sys.path.insert(0, "/workspace")
    services = {name: _made(name, module, plan["config"]) for name, module in plan["classes"].items()}
    results = [[_called(services, *call) for call in step] for step in plan["steps"]]
    state = {name: {key: vars(services[name]).get(key) for key in keys} for name, keys in plan["kept"].items()}
    json.dump({"results": results, "state": state}, told)
    told.close()


def _made(name, module, config):
    service = getattr(importlib.import_module(module), name)()
    for scenario in (name, "BaseApi"):  # the device's state is each service's
        service._load_scenario(json.loads(json.dumps(config.get(scenario, {}))))
    return service


def _called(services, name, arguments):
    """What it gives, in the owner's words: of all services that have it, the last one's. Faults are words, too."""
    methods = [] if name.startswith("_") else [getattr(service, name, None) for service in services.values()]
    methods = [method for method in methods if callable(method)]
    if not methods:
        return f"Error during execution: name '{name}' is not defined"
    value = None
    try:
        for method in methods:
            value = method(**arguments)
    except Exception as error:
        return f"Error during execution: {error}"
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value) if isinstance(value, dict) else str(value)
    except (TypeError, ValueError):
        return str(value)


if __name__ == "__main__":
    main()
