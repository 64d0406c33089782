/** How many live streams all tabs of this platform hold together. Browsers allow six connections a host: whoever takes them all hears no answer. */

const MOST = 4;
const NEWS_MILLISECONDS = 4000;
const FORGET_MILLISECONDS = 3 * NEWS_MILLISECONDS;

type Said = { readonly kind: "here" | "gone"; readonly id: string; readonly since: number; readonly isHidden: boolean };
type Member = { since: number; isHidden: boolean; heardAt: number };

/** Streams by id, ours and those of other tabs. Pure, but for the time that it is given. */
export class Crowd {
  private readonly members = new Map<string, Member>();

  hear({ kind, id, since, isHidden }: Said, now: number): void {
    if (kind === "gone") this.members.delete(id);
    else this.members.set(id, { since, isHidden, heardAt: now });
  }

  /** Whether a stream may stay open: visible tabs come before hidden ones, later ones before earlier ones. A tab that says nothing any more is gone. */
  hasRoomFor(id: string, now: number): boolean {
    const mine = this.members.get(id);
    if (!mine) return true;
    let before = 0;
    for (const [other, member] of this.members) {
      if (now - member.heardAt > FORGET_MILLISECONDS) this.members.delete(other);
      else if (other !== id && isBefore(member, other, mine, id)) before += 1;
    }
    return before < MOST;
  }
}

function isBefore(a: Member, aId: string, b: Member, bId: string): boolean {
  if (a.isHidden !== b.isHidden) return b.isHidden;
  return a.since !== b.since ? a.since > b.since : aId > bId;
}

export type Place = { hasRoom: () => boolean; leave: () => void };

/** Tells other tabs of a stream of this one for as long as it wants to be open. `onNews` comes whenever it may have lost or found its room. */
export function joinCrowd(onNews: () => void): Place {
  const id = Array.from(crypto.getRandomValues(new Uint32Array(2)), (part) => part.toString(36)).join("");
  const since = Date.now();
  const crowd = new Crowd();
  const channel = new BroadcastChannel("abruzzi streams");
  const say = (kind: Said["kind"]): void => {
    const said: Said = { kind, id, since, isHidden: document.visibilityState === "hidden" };
    crowd.hear(said, Date.now());
    channel.postMessage(said);
  };
  channel.onmessage = ({ data }: MessageEvent<Said>) => {
    const isNew = data.kind === "here" && data.since > since;
    crowd.hear(data, Date.now());
    if (isNew) say("here");
    onNews();
  };
  const again = (): void => {
    say("here");
    onNews();
  };
  const timer = setInterval(again, NEWS_MILLISECONDS);
  const sayGone = (): void => say("gone");
  const leave = (): void => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", again);
    removeEventListener("pagehide", sayGone);
    sayGone();
    channel.close();
  };
  document.addEventListener("visibilitychange", again);
  addEventListener("pagehide", sayGone);
  say("here");
  return { hasRoom: () => crowd.hasRoomFor(id, Date.now()), leave };
}
