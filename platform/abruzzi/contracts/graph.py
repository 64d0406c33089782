"""The DAG of a recipe: order, ancestors and the binding of inputs to outputs. Pure; mistakes come back as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from abruzzi.contracts.endpoint import ChatRole, CheckpointEndpoint, OpenAiEndpoint, endpoints_of
from abruzzi.contracts.gate import parse_gate
from abruzzi.contracts.nearest import nearest
from abruzzi.contracts.recipe import (
    OPTIONAL_INPUTS,
    OUTPUTS,
    AskingStage,
    Recipe,
    RedteamStage,
    SftStage,
    StageBase,
    required_inputs,
)
from abruzzi.contracts.states import ArtifactKind


@dataclass(frozen=True, slots=True)
class Binding:
    """Input `name` of a stage comes from `output` of stage `stage_id`."""

    name: str
    stage_id: str
    output: str
    kind: ArtifactKind
    artifact_id: str | None = None
    """Instead of a stage's output: one that another run has made."""

    @property
    def reference(self) -> str:
        """As a recipe says it."""
        return f"{ARTIFACT}{self.artifact_id}" if self.artifact_id is not None else f"{self.stage_id}.{self.output}"

    def as_dict(self) -> dict[str, str]:
        """As a run keeps it."""
        if self.artifact_id is not None:
            return {"artifact_id": self.artifact_id, "kind": self.kind}
        return {"stage_id": self.stage_id, "output": self.output, "kind": self.kind}


ARTIFACT = "artifact:"
"""What a reference to an artifact by its id begins with."""


def _binding(name: str, reference: str, kind: ArtifactKind) -> Binding:
    if reference.startswith(ARTIFACT):
        return Binding(name, "", "", kind, reference.removeprefix(ARTIFACT))
    source, _, output = reference.partition(".")
    return Binding(name, source, output, kind)


@dataclass(frozen=True, slots=True)
class GraphMistake:
    """`path` points into the recipe, such as ("stage", 2, "needs")."""

    path: tuple[str | int, ...]
    message: str
    hint: str


def ancestors(recipe: Recipe, stage_id: str) -> list[str]:
    """Stages that `stage_id` needs, directly or not, nearest first (breadth first, in the order of `needs`)."""
    by_id = {s.id: s for s in recipe.stage}
    found: list[str] = []
    frontier = [n for n in by_id[stage_id].needs if n in by_id]
    while frontier:
        following: list[str] = []
        for name in frontier:
            if name not in found and name != stage_id:
                found.append(name)
                following += [n for n in by_id[name].needs if n in by_id]
        frontier = following
    return found


def bind_inputs(recipe: Recipe, stage: StageBase) -> dict[str, Binding]:
    """Bindings of a valid recipe's stage: the explicit ones, then by kind from the nearest ancestor that makes it."""
    bindings: dict[str, Binding] = {}
    kinds = {**OPTIONAL_INPUTS.get(stage.kind, {}), **required_inputs(stage)}
    for name, reference in stage.inputs.items():
        if reference.startswith(ARTIFACT):
            bindings[name] = _binding(name, reference, kinds[name])
        else:
            source, _, output = reference.partition(".")
            bindings[name] = _binding(name, reference, OUTPUTS[recipe.stage_by_id(source).kind][output])
    found = ancestors(recipe, stage.id)
    nearby = [name for name in found if name in stage.needs]
    for wanted, makers in ((required_inputs(stage), found), (OPTIONAL_INPUTS.get(stage.kind, {}), nearby)):
        for name, kind in wanted.items():
            if name in bindings:
                continue
            for source in makers:
                output = next((o for o, k in OUTPUTS[recipe.stage_by_id(source).kind].items() if k == kind), None)
                if output is not None:
                    bindings[name] = Binding(name, source, output, kind)
                    break
    for name, (_, reference, kind) in served_inputs(stage).items():
        bindings[name] = _binding(name, reference, kind)
    return bindings


def made_by(recipe: Recipe, binding: Binding | None) -> StageBase | None:
    """The stage of this recipe; None of what comes from elsewhere."""
    return recipe.stage_by_id(binding.stage_id) if binding is not None and binding.artifact_id is None else None


def served_inputs(stage: StageBase) -> dict[str, tuple[tuple[str, str], str, ArtifactKind]]:
    """{input name: ((endpoint, key), reference, kind)}: what the stage is given beside its own inputs, to serve the checkpoints that it asks.

    An endpoint called `own` makes the inputs `own.checkpoint` and `own.tokenizer`.
    """
    if not isinstance(stage, AskingStage):
        return {}
    kinds = {"checkpoint": ArtifactKind.CHECKPOINT, "tokenizer": ArtifactKind.TOKENIZER}
    return {
        f"{name}.{key}": ((name, key), getattr(endpoint, key), kind)
        for name, endpoint in endpoints_of(stage.asked_roles(), stage.endpoint).items()
        if isinstance(endpoint, CheckpointEndpoint)
        for key, kind in kinds.items()
    }


def mistakes(recipe: Recipe) -> Iterator[GraphMistake]:
    """Everything that is wrong between stages: names, cycles, inputs, gates."""
    seen: dict[str, int] = {}
    for index, stage in enumerate(recipe.stage):
        if stage.id in seen:
            yield GraphMistake(
                ("stage", index, "id"), f"stage id {stage.id!r} is used twice", "Give each stage an id of its own."
            )
        seen.setdefault(stage.id, index)
    if len(seen) < len(recipe.stage):
        return  # who needs whom cannot be said
    names = list(seen)
    for index, stage in enumerate(recipe.stage):
        for need in stage.needs:
            if need not in seen:
                yield GraphMistake(
                    ("stage", index, "needs"),
                    f"stage {stage.id!r} needs {need!r}, which is no stage",
                    nearest(need, names),
                )
    cycle = _cycle(recipe)
    if cycle:
        yield GraphMistake(
            ("stage", seen[cycle[0]], "needs"),
            f"the stages need each other in a circle: {' -> '.join([*cycle, cycle[0]])}",
            "Remove one of these needs.",
        )
        return
    for index, stage in enumerate(recipe.stage):
        yield from _input_mistakes(recipe, stage, index, names)
        yield from _gate_mistakes(recipe, stage, index, names)
        yield from _role_mistakes(recipe, stage, index, names)


def _role_mistakes(recipe: Recipe, stage: StageBase, index: int, names: list[str]) -> Iterator[GraphMistake]:
    if not isinstance(stage, AskingStage):
        return
    known = {**recipe.endpoint, **stage.endpoint}
    for place, config in stage.asked().values():
        if config.endpoint not in known:
            hint = nearest(config.endpoint, list(known)) if known else f"Add a table [endpoint.{config.endpoint}]."
            yield GraphMistake(
                ("stage", index, *place, "endpoint"),
                f"no endpoint is called {config.endpoint!r}",
                hint,
            )
        elif place[-1] == ChatRole.EMBEDDER and not isinstance(known[config.endpoint], OpenAiEndpoint):
            yield GraphMistake(
                ("stage", index, *place, "endpoint"),
                f"endpoint {config.endpoint!r} answers chats and gives no embeddings",
                'Name an endpoint of kind "openai" whose model is an embedding model.',
            )
    if isinstance(stage, RedteamStage):
        for role, name, host in stage.leaving():
            yield GraphMistake(
                ("stage", index, "roles", role.value),
                f"the {role} is endpoint {name!r} at {host}, and attackers' words go to the target and nowhere else outside",
                "Serve the model beside the stage or in the cluster, or name its host in redteam.deployment_hosts.",
            )
    for (name, key), reference, kind in served_inputs(stage).values():
        if reference.startswith(ARTIFACT):
            continue
        path = ("endpoint", name, key) if name in recipe.endpoint else ("stage", index, "endpoint", name, key)
        source, dot, output = reference.partition(".")
        if not dot or source not in names:
            yield GraphMistake(path, f'{reference!r} is not of the form "<stage>.<output>"', nearest(source, names))
        elif OUTPUTS[recipe.stage_by_id(source).kind].get(output) != kind:
            outputs = [o for o, k in OUTPUTS[recipe.stage_by_id(source).kind].items() if k == kind]
            hint = nearest(output, outputs) if outputs else f"Name a stage that makes a {kind}."
            yield GraphMistake(path, f"stage {source!r} has no {kind} called {output!r}", hint)
        elif source not in ancestors(recipe, stage.id):
            yield GraphMistake(
                path,
                f"endpoint {name!r} serves what {source!r} makes, which stage {stage.id!r} asks but does not need",
                f"Add {source!r} to the needs of {stage.id!r}.",
            )


def _cycle(recipe: Recipe) -> list[str]:
    needs = {s.id: [n for n in s.needs if n in {t.id for t in recipe.stage}] for s in recipe.stage}
    done: set[str] = set()
    for start in needs:
        path: list[str] = []

        def visit(name: str, path: list[str] = path) -> list[str]:
            if name in path:
                return path[path.index(name) :]
            if name in done:
                return []
            path.append(name)
            for need in needs[name]:
                found = visit(need)
                if found:
                    return found
            path.pop()
            done.add(name)
            return []

        found = visit(start)
        if found:
            return found
    return []


def _input_mistakes(recipe: Recipe, stage: StageBase, index: int, names: list[str]) -> Iterator[GraphMistake]:
    required = required_inputs(stage)
    wanted = {**required, **OPTIONAL_INPUTS.get(stage.kind, {})}
    known = set(names)
    named = {n: r for n, r in stage.inputs.items() if not (r.startswith(ARTIFACT) and n in wanted)}
    for name, reference in named.items():
        path = ("stage", index, "inputs", name)
        source, dot, output = reference.partition(".")
        if not dot or source not in known:
            yield GraphMistake(
                path, f'input {name!r} refers to {reference!r}; expected "<stage>.<output>"', nearest(source, names)
            )
            continue
        outputs = OUTPUTS[recipe.stage_by_id(source).kind]
        if output not in outputs:
            yield GraphMistake(path, f"stage {source!r} has no output {output!r}", nearest(output, list(outputs)))
        elif wanted and name not in wanted:
            yield GraphMistake(path, f"a stage of kind {stage.kind} has no input {name!r}", nearest(name, list(wanted)))
        elif wanted and outputs[output] != wanted[name]:
            yield GraphMistake(
                path,
                f"input {name!r} must be a {wanted[name]}, but {reference!r} is a {outputs[output]}",
                "Point it at another output.",
            )
        elif source not in ancestors(recipe, stage.id):
            yield GraphMistake(
                path,
                f"input {name!r} comes from {source!r}, which stage {stage.id!r} does not need",
                f"Add {source!r} to needs.",
            )
    if any(n not in known for n in stage.needs):
        return
    bound = {} if any(r.partition(".")[0] not in known for r in named.values()) else _bound_names(recipe, stage)
    for name, kind in required.items():
        if name not in stage.inputs and name not in bound:
            makers = [s.id for s in recipe.stage if kind in OUTPUTS[s.kind].values() and s.id != stage.id]
            hint = f"Add {makers[0]!r} to its needs." if makers else f"Add a stage that makes a {kind}."
            yield GraphMistake(
                ("stage", index, "needs"),
                f"stage {stage.id!r} has no {name} to work on: nothing that it needs makes a {kind}",
                hint,
            )
    if isinstance(stage, SftStage) and not (stage.data.sources or stage.data.gyms or stage.data.preferences):
        optional = OPTIONAL_INPUTS[stage.kind]
        nearby = {k for n in stage.needs if n in known for k in OUTPUTS[recipe.stage_by_id(n).kind].values()}
        if not any(name in stage.inputs or kind in nearby for name, kind in optional.items()):
            yield GraphMistake(
                ("stage", index, "needs"),
                f"stage {stage.id!r} has no conversations to learn from: none of its needs makes {' or '.join(optional)}, and it names no files and no gyms",
                'Add such a stage to its needs, or files: data.sources = ["./chats/*.jsonl"].',
            )


def _gate_mistakes(recipe: Recipe, stage: StageBase, index: int, names: list[str]) -> Iterator[GraphMistake]:
    if stage.gate is None:
        return
    path = ("stage", index, "gate")
    gates = parse_gate(stage.gate)
    if gates is None:
        yield GraphMistake(
            path,
            f"{stage.gate!r} is no gate",
            'Expected "<stage>.<fact> <= <number>", such as "evaluate.bits_per_byte <= 2.2"; several are joined by "and".',
        )
    for gate in gates or ():
        if gate.stage_id not in names:
            yield GraphMistake(
                path, f"the gate looks at stage {gate.stage_id!r}, which is no stage", nearest(gate.stage_id, names)
            )
        elif gate.stage_id not in ancestors(recipe, stage.id):
            yield GraphMistake(
                path,
                f"the gate looks at {gate.stage_id!r}, which stage {stage.id!r} does not need",
                f"Add {gate.stage_id!r} to needs.",
            )


def _bound_names(recipe: Recipe, stage: StageBase) -> set[str]:
    made = {k for a in ancestors(recipe, stage.id) for k in OUTPUTS[recipe.stage_by_id(a).kind].values()}
    return {n for n, k in required_inputs(stage).items() if k in made}
