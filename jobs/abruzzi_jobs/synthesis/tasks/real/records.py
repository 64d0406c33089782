"""Tasks on databases, memories and repositories."""

from __future__ import annotations

import json
import random

from abruzzi_jobs.synthesis.tasks.real.draft import Draft, Maker, Probe, given, path

SQLITE, MEMORY, GIT = "mcp-server-sqlite", "@modelcontextprotocol/server-memory", "mcp-server-git"
_PEOPLE = (
    "Amira Conti",
    "Jonas Berg",
    "Lucia Ferri",
    "Mateo Silva",
    "Nora Lind",
    "Pavel Novak",
    "Sara Okafor",
    "Yuki Tanaka",
)
_CRAFTS = ("baker", "surveyor", "nurse", "carpenter", "pilot", "teacher")
_GOODS = ("apples", "bricks", "candles", "drums", "envelopes", "flutes")
_REPOSITORY = "repository"


def _query(draw: random.Random) -> Draft:
    a, b = draw.randint(12, 90), draw.randint(12, 90)
    query = f"SELECT {a} * {b} AS answer"
    return Draft(
        wishes=[f"run the query {query} and tell me the answer"],
        facts=[given("query", query)],
        calls=[(SQLITE, "read_query", {"query": query})],
        report=f"The answer is {a * b}.",
        answers=[("the answer", float(a * b))],
    )


def _table(draw: random.Random) -> Draft:
    name = draw.choice(("stock", "store", "shelf", "cargo"))
    goods = draw.sample(_GOODS, draw.randint(2, 4))
    units = [draw.randint(20, 400) for _ in goods]
    rows = ", ".join(f"('{thing}', {n})" for thing, n in zip(goods, units, strict=True))
    listed = ", ".join(f"{n} {thing}" for thing, n in zip(goods, units, strict=True))
    total = f"SELECT SUM(units) AS total FROM {name}"  # noqa: S608
    return Draft(
        wishes=[
            f"make a table {name} with a text column item and an integer column units",
            f"put these into it: {listed}",
            "tell me the sum of all units, as the database gives it",
        ],
        facts=[given("table", name), *(given(thing, n) for thing, n in zip(goods, units, strict=True))],
        calls=[
            (SQLITE, "create_table", {"query": f"CREATE TABLE {name} (item TEXT, units INTEGER)"}),
            (SQLITE, "write_query", {"query": f"INSERT INTO {name} (item, units) VALUES {rows}"}),  # noqa: S608
            (SQLITE, "read_query", {"query": total}),
        ],
        report=f"The table is there; the sum is {sum(units)}.",
        answers=[("the sum", float(sum(units)))],
        probes=[
            Probe(
                text="The table has the rows.",
                call=(SQLITE, "read_query", {"query": f"SELECT COUNT(*) AS n, SUM(units) AS total FROM {name}"}),  # noqa: S608
                contains=(f"'n': {len(goods)}", f"'total': {sum(units)}"),
            )
        ],
    )


def _empty_table(draw: random.Random) -> Draft:
    name, column = draw.choice(("visits", "letters", "repairs")), draw.choice(("day", "sender", "place"))
    query = f"CREATE TABLE {name} ({column} TEXT)"
    return Draft(
        wishes=[f"make a table {name} with one text column {column}"],
        facts=[given("table", name), given("column", column)],
        calls=[(SQLITE, "create_table", {"query": query})],
        report="The table is there.",
        probes=[
            Probe(
                text="The table has the column.",
                call=(SQLITE, "read_query", {"query": f"SELECT name FROM pragma_table_info('{name}')"}),  # noqa: S608
                contains=(f"'{column}'",),
            )
        ],
    )


def _known(draw: random.Random, people: int) -> tuple[list[str], list[str], str]:
    """(names, crafts, memory.jsonl)."""
    names, crafts = draw.sample(_PEOPLE, people), [draw.choice(_CRAFTS) for _ in range(people)]
    lines = [
        json.dumps({"type": "entity", "name": name, "entityType": "person", "observations": [f"works as a {craft}"]})
        for name, craft in zip(names, crafts, strict=True)
    ]
    return names, crafts, "\n".join(lines)


def _recall(draw: random.Random) -> Draft:
    names, crafts, memory = _known(draw, 4)
    return Draft(
        wishes=[f"tell me what {names[0]} works as, from your memory"],
        facts=[given("name", names[0])],
        calls=[(MEMORY, "open_nodes", {"names": [names[0]]})],
        report=f"{names[0]} works as a {crafts[0]}.",
        answers=[("the craft", (crafts[0],))],
        files={"memory.jsonl": memory},
    )


def _remember(draw: random.Random) -> Draft:
    name, craft = draw.choice(_PEOPLE), draw.choice(_CRAFTS)
    said = f"works as a {craft}"
    entity = {"name": name, "entityType": "person", "observations": [said]}
    return Draft(
        wishes=[f'remember a new person called {name}, with the observation "{said}"'],
        facts=[given("name", name), given("observation", said)],
        calls=[(MEMORY, "create_entities", {"entities": [entity]})],
        report="I will remember that.",
        probes=[Probe(text="It is remembered.", call=(MEMORY, "open_nodes", {"names": [name]}), contains=(name, said))],
    )


def _relate(draw: random.Random) -> Draft:
    names, _, memory = _known(draw, 4)
    fact = f"lives in house {draw.randint(2, 60)}"
    relation = {"from": names[0], "to": names[1], "relationType": "works_with"}
    return Draft(
        wishes=[
            f'add to what you know of {names[0]}: "{fact}"',
            f"note the relation works_with from {names[0]} to {names[1]}",
        ],
        facts=[
            given("observation", fact),
            given("name", names[0]),
            given("colleague", names[1]),
            given("relation", "works_with"),
        ],
        calls=[
            (MEMORY, "add_observations", {"observations": [{"entityName": names[0], "contents": [fact]}]}),
            (MEMORY, "create_relations", {"relations": [relation]}),
        ],
        report="Both are noted.",
        probes=[
            Probe(
                text="Both are known, and nobody is forgotten.",
                call=(MEMORY, "read_graph", {}),
                contains=(fact, "works_with", *names),
            )
        ],
        files={"memory.jsonl": memory},
    )


def _branch(draw: random.Random) -> Draft:
    name = f"{draw.choice(('feature', 'repair', 'trial'))}-{draw.randint(10, 99)}"
    where = path(_REPOSITORY)
    return Draft(
        wishes=[f"make a branch called {name} in the repository {where}"],
        facts=[given("branch", name), given("repository", where)],
        calls=[(GIT, "git_create_branch", {"repo_path": where, "branch_name": name})],
        report=f"The branch {name} is there.",
        probes=[
            Probe(
                text="The branch is there.",
                call=(GIT, "git_branch", {"repo_path": where, "branch_type": "local"}),
                contains=(name,),
            )
        ],
    )


def _last_commit(draw: random.Random) -> Draft:
    where = path(_REPOSITORY)
    return Draft(
        wishes=[f"tell me the message of the last commit in {where}, word by word"],
        facts=[given("repository", where)],
        calls=[(GIT, "git_log", {"repo_path": where, "max_count": draw.randint(1, 9)})],
        report="The message is: first commit.",
        answers=[("the message", ("first commit",))],
    )


def _commit(draw: random.Random) -> Draft:
    where, name = path(_REPOSITORY), f"notes-{draw.randint(2, 99)}.txt"
    message = f"add notes on {draw.choice(_GOODS)}"
    return Draft(
        wishes=[
            f"add the file {name} in the repository {where} to the next commit",
            f'commit it with the message "{message}"',
        ],
        facts=[given("file", name), given("repository", where), given("message", message)],
        calls=[
            (GIT, "git_add", {"repo_path": where, "files": [name]}),
            (GIT, "git_commit", {"repo_path": where, "message": message}),
        ],
        report="The file is committed.",
        probes=[
            Probe(
                text="The last commit has the message and the file.",
                call=(GIT, "git_show", {"repo_path": where, "revision": "HEAD"}),
                contains=(message, name),
            )
        ],
        files={f"{_REPOSITORY}/{name}": "some notes\n"},
    )


MAKERS = (
    Maker(tools=((SQLITE, "read_query"),), difficulty="simple", make=_query),
    Maker(tools=((SQLITE, "create_table"), (SQLITE, "read_query")), difficulty="simple", make=_empty_table),
    Maker(
        tools=((SQLITE, "create_table"), (SQLITE, "write_query"), (SQLITE, "read_query")),
        difficulty="complex",
        make=_table,
    ),
    Maker(tools=((MEMORY, "open_nodes"),), difficulty="simple", make=_recall),
    Maker(tools=((MEMORY, "create_entities"), (MEMORY, "open_nodes")), difficulty="simple", make=_remember),
    Maker(
        tools=((MEMORY, "add_observations"), (MEMORY, "create_relations"), (MEMORY, "read_graph")),
        difficulty="moderate",
        make=_relate,
    ),
    Maker(tools=((GIT, "git_create_branch"), (GIT, "git_branch")), difficulty="simple", make=_branch),
    Maker(tools=((GIT, "git_log"),), difficulty="simple", make=_last_commit),
    Maker(tools=((GIT, "git_add"), (GIT, "git_commit"), (GIT, "git_show")), difficulty="moderate", make=_commit),
)
