"""Records rewrites of real passages by SmolLM2, for the verifier to be read against: bench/data/smollm2_rewrites.jsonl.

python bench/fidelity_smollm2.py [--passages 40]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from pathlib import Path

from fidelity_rewrites import passages

from abruzzi.contracts.endpoint import ChatRole, RoleConfig, SmolLm2Endpoint
from abruzzi.contracts.rephrase import RephraseConfig
from abruzzi_jobs.chat.roles import open_roles
from abruzzi_jobs.rephrase.fidelity.fault import Fault
from abruzzi_jobs.rephrase.grid import cells_of, load_grid
from abruzzi_jobs.rephrase.rewriting import rewrite

OUT = Path(__file__).parent / "data" / "smollm2_rewrites.jsonl"
SEED = 20


async def main(count: int) -> None:
    chosen = random.Random(SEED).sample(list(passages()), count)
    there = {json.loads(line)["text"] for line in OUT.read_text().splitlines()} if OUT.exists() else set()
    config, grid = RephraseConfig(retries=0), load_grid()
    roles = {ChatRole.REPHRASER: RoleConfig(endpoint="small", temperature=0.5, max_tokens=160)}
    async with open_roles(roles, {"small": SmolLm2Endpoint(kind="smollm2")}, seed=SEED) as opened:

        async def one(source: str, document: str, passage: str) -> dict[str, str]:
            domain = "knowledge" if source == "mendeleev" else "web"
            (cell,) = cells_of(grid.cells(config, domain=domain), 1, document=document + passage, seed=SEED)
            done = await rewrite(passage, cell, grid=grid, backend=opened["rephraser"], config=config, verify=_nothing)
            return {
                "source": source, "document": document, "style": cell.style, "perspective": cell.perspective, "text": passage,
                "rewrite": done.text, "truncated": "yes" if done.faults else "", "generator": done.parts[-1].generator,
                "prompt_version": grid.version,
            }  # fmt: skip

        for row in asyncio.as_completed([one(*passage) for passage in chosen if passage[2] not in there]):
            line = json.dumps(await row, ensure_ascii=False) + "\n"
            with OUT.open("a", encoding="utf-8") as out:
                out.write(line)


async def _nothing(source: str, text: str, *, context: str) -> list[Fault]:
    return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=30)
    asyncio.run(main(parser.parse_args().passages))
