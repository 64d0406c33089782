/** Whether the platform answers. Requests and streams report; while it does not answer, this asks once a second and says when it is back. */

export type Connection = { readonly state: "ok" | "lost"; readonly since: number };

const PROBE_MILLISECONDS = 1000;
let current: Connection = { state: "ok", since: Date.now() };
let probing = false;
const watchers = new Set<() => void>();

export const connection = {
  get: (): Connection => current,
  subscribe(watcher: () => void): () => void {
    watchers.add(watcher);
    return () => watchers.delete(watcher);
  },
  /** Something arrived. */
  fine(): void {
    if (current.state === "lost" && !probing) set("ok");
  },
  /** Something failed: look, before anybody is alarmed. */
  trouble(): void {
    if (!probing) void probe();
  },
};

async function probe(): Promise<void> {
  probing = true;
  for (;;) {
    if (await answers()) break;
    set("lost");
    await new Promise((done) => setTimeout(done, PROBE_MILLISECONDS));
  }
  probing = false;
  set("ok");
}

async function answers(): Promise<boolean> {
  try {
    const response = await fetch("/readyz", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    return response.ok;
  } catch {
    return false; // the question was whether it answers
  }
}

function set(state: Connection["state"]): void {
  if (state === current.state) return;
  current = { state, since: Date.now() };
  for (const watcher of watchers) watcher();
}
