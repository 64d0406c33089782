import { NODE, type Place, type Placed } from "./layout";

/** Stages that need the same and are needed by the same, such as the trainings of a study, are drawn as one block: forty in a column could not be read. Pure. */

export type Drawn = { readonly id: string; readonly needs: readonly string[] };
/** Of one stage, or of many. */
export type Block = Drawn & { readonly members: readonly string[]; readonly width: number; readonly height: number };

const MANY = 6;
const ROWS = 5;
const GAP = 8;
const EDGE = 8;

export function blocksOf(stages: readonly Drawn[]): Block[] {
  const neededBy = new Map<string, string[]>();
  for (const { id, needs } of stages) for (const need of needs) neededBy.set(need, [...(neededBy.get(need) ?? []), id]);
  const groups = new Map<string, Drawn[]>();
  for (const stage of stages) {
    const likeness = [...stage.needs].sort().join() + ">" + (neededBy.get(stage.id) ?? []).join();
    groups.set(likeness, [...(groups.get(likeness) ?? []), stage]);
  }
  const blockOf = new Map<string, string>();
  const gathered = [...groups.values()].flatMap((group) => (group.length >= MANY ? [group] : group.map((stage) => [stage])));
  const ids = gathered.map((group) => (group.length > 1 ? `${group[0]?.id} and ${group.length - 1} more` : (group[0]?.id ?? "")));
  gathered.forEach((group, i) => group.forEach((stage) => blockOf.set(stage.id, ids[i] ?? stage.id)));
  return gathered.map((group, i): Block => {
    const needs = [...new Set((group[0]?.needs ?? []).map((need) => blockOf.get(need) ?? need))];
    return { id: ids[i] ?? "", needs, members: group.map((stage) => stage.id), ...sizeOf(group.length) };
  });
}

const columnsOf = (members: number): number => Math.ceil(members / ROWS);

function sizeOf(members: number): { width: number; height: number } {
  if (members === 1) return NODE;
  const columns = columnsOf(members);
  const rows = Math.ceil(members / columns);
  return { width: columns * (NODE.width + GAP) - GAP + 2 * EDGE, height: rows * (NODE.height + GAP) - GAP + 2 * EDGE };
}

/** Places of all stages, from those of their blocks; those of a block stand row by row. */
export function membersPlaced(blocks: readonly Block[], { places }: Placed): ReadonlyMap<string, Place> {
  const found = new Map<string, Place>();
  for (const { id, members } of blocks) {
    const at = places.get(id) ?? { x: 0, y: 0 };
    const columns = columnsOf(members.length);
    members.forEach((member, i) => {
      found.set(member, members.length === 1 ? at : { x: at.x + EDGE + (i % columns) * (NODE.width + GAP), y: at.y + EDGE + Math.floor(i / columns) * (NODE.height + GAP) });
    });
  }
  return found;
}
