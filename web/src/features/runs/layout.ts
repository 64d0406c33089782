import type ELKType from "elkjs/lib/elk-api";

export type Place = { readonly x: number; readonly y: number };
export type Placed = { readonly places: ReadonlyMap<string, Place>; readonly height: number };

export const NODE = { width: 168, height: 54 } as const;
const GAP = { x: 44, y: 18 } as const;

/** What is laid out; without a size it is a stage. */
type Drawn = { readonly id: string; readonly needs: readonly string[] };
type Sized = Drawn & { readonly width?: number; readonly height?: number };

/** Columns by depth: exact for a chain, and what is shown of any graph until ELK has answered. Pure. */
export function columnsLayout(stages: readonly Sized[]): Placed {
  const depth = new Map<string, number>();
  const depthOf = (id: string): number => {
    const known = depth.get(id);
    if (known !== undefined) return known;
    depth.set(id, 0);
    const needs = stages.find((stage) => stage.id === id)?.needs ?? [];
    const found = needs.length > 0 ? Math.max(...needs.map(depthOf)) + 1 : 0;
    depth.set(id, found);
    return found;
  };
  const columns: Sized[][] = [];
  for (const stage of stages) (columns[depthOf(stage.id)] ??= []).push(stage);
  const places = new Map<string, Place>();
  let [x, height] = [0, 0];
  for (const column of columns) {
    let y = 0;
    for (const stage of column) {
      places.set(stage.id, { x, y });
      y += (stage.height ?? NODE.height) + GAP.y;
    }
    height = Math.max(height, y - GAP.y);
    x += Math.max(...column.map((stage) => stage.width ?? NODE.width)) + GAP.x;
  }
  return { places, height: Math.max(NODE.height, height) };
}

/** Without the needs that follow from others: who needs tokenize, which needs corpus, is drawn behind tokenize alone. */
export function reduced<T extends Drawn>(stages: readonly T[]): { id: string; needs: string[] }[] {
  const needsOf = new Map(stages.map((stage) => [stage.id, stage.needs]));
  const reaches = (from: string, to: string): boolean => (needsOf.get(from) ?? []).some((need) => need === to || reaches(need, to));
  return stages.map(({ id, needs }) => ({ id, needs: needs.filter((need) => !needs.some((other) => other !== need && reaches(other, need))) }));
}

export function isChain(stages: readonly Drawn[]): boolean {
  return stages.every((stage, i) => stage.needs.length === Number(i > 0) && stage.needs.every((need) => need === stages[i - 1]?.id));
}

let elk: Promise<InstanceType<typeof ELKType>> | undefined;

/** Layered layout with few crossings, computed in a worker so that a large graph does not stop the page. */
export async function elkLayout(stages: readonly Sized[]): Promise<Placed> {
  elk ??= startElk();
  const graph = await (await elk).layout({
    id: "run",
    layoutOptions: {
      "elk.algorithm": "layered",
      "elk.direction": "RIGHT",
      "elk.layered.spacing.nodeNodeBetweenLayers": String(GAP.x),
      "elk.spacing.nodeNode": String(GAP.y),
    },
    children: stages.map(({ id, width = NODE.width, height = NODE.height }) => ({ id, width, height })),
    edges: stages.flatMap(({ id, needs }) => needs.map((need) => ({ id: `${need} ${id}`, sources: [need], targets: [id] }))),
  });
  const nodes = graph.children ?? [];
  const top = Math.min(...nodes.map((node) => node.y ?? 0));
  const places = new Map(nodes.map((node) => [node.id, { x: node.x ?? 0, y: (node.y ?? 0) - top }]));
  return { places, height: Math.max(...nodes.map((node) => (node.y ?? 0) - top + (node.height ?? NODE.height))) };
}

async function startElk(): Promise<InstanceType<typeof ELKType>> {
  const [{ default: Elk }, { default: ElkWorker }] = await Promise.all([import("elkjs/lib/elk-api"), import("elkjs/lib/elk-worker.min.js?worker")]);
  return new Elk({ workerFactory: () => new ElkWorker() });
}
