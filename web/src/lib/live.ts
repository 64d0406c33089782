import { connection } from "./connection";
import { joinCrowd } from "./crowd";

type Handlers = Readonly<Record<string, (data: unknown, id: string) => void>>;

const RETRY_MILLISECONDS = 1000;
const HIDDEN_MILLISECONDS = 30_000;
/** The server says `ping` after 5 s without news: a stream that is silent for longer has lost its other end, and TCP may not say so for minutes. */
const SILENCE_MILLISECONDS = 12_000;
const LOOK_MILLISECONDS = 2000;
/** Without room for a stream of its own a page looks in now and then, for as long as the first news take. */
const TURN_MILLISECONDS = 8000;
const GLANCE_MILLISECONDS = 1500;

/** A server-sent stream that comes back: by itself with Last-Event-ID, anew with `url(lastId)` where the browser or the watch has given up.
 *
 * Only a page that is seen connects, and one that is hidden lets go after a while: browsers allow six connections a host. Where more pages are seen
 * than there is room for (crowd.ts), the earlier ones take turns. The event `end` closes it.
 */
export function openStream(url: (lastId: string | null) => string, handlers: Handlers): () => void {
  let source: EventSource | null = null;
  let lastId: string | null = null;
  let heardAt = 0;
  let hiddenAt = document.visibilityState === "hidden" ? -Infinity : Infinity;
  let retryAt = 0;
  let glanceEndsAt = Infinity;
  let ended = false;
  const place = joinCrowd(look);
  const timer = setInterval(look, LOOK_MILLISECONDS);

  function disconnect(): void {
    source?.close();
    source = null;
    glanceEndsAt = Infinity;
  }

  function connect(): void {
    disconnect();
    const opened = new EventSource(url(lastId));
    source = opened;
    heardAt = performance.now();
    const hear = (): void => {
      heardAt = performance.now();
    };
    opened.onopen = () => {
      hear();
      connection.fine();
    };
    opened.onerror = () => {
      connection.trouble();
      if (opened.readyState !== EventSource.CLOSED || source !== opened) return;
      disconnect();
      retryAt = performance.now() + RETRY_MILLISECONDS;
      setTimeout(look, RETRY_MILLISECONDS);
    };
    opened.addEventListener("ping", hear);
    for (const [name, handle] of Object.entries(handlers)) {
      opened.addEventListener(name, (event: MessageEvent<string>) => {
        hear();
        lastId = event.lastEventId || lastId;
        handle(JSON.parse(event.data), event.lastEventId);
      });
    }
    opened.addEventListener("end", close);
  }

  /** Whether the stream is as it should be now. */
  function look(): void {
    if (ended) return;
    const now = performance.now();
    const isHidden = document.visibilityState === "hidden";
    hiddenAt = isHidden ? Math.min(hiddenAt, now) : Infinity;
    if (isHidden && (now - hiddenAt > HIDDEN_MILLISECONDS || !place.hasRoom())) {
      disconnect();
    } else if (source) {
      if (place.hasRoom()) glanceEndsAt = Infinity;
      else if (glanceEndsAt === Infinity) glanceEndsAt = now;
      if (now >= glanceEndsAt) {
        disconnect();
        retryAt = now + TURN_MILLISECONDS * (0.5 + Math.random());
      } else if (now - heardAt > SILENCE_MILLISECONDS) {
        connection.trouble();
        connect();
      }
    } else if (!isHidden && (now >= retryAt || (place.hasRoom() && retryAt - now > RETRY_MILLISECONDS))) {
      connect();
      if (place.hasRoom()) return;
      glanceEndsAt = now + GLANCE_MILLISECONDS;
      setTimeout(look, GLANCE_MILLISECONDS);
    }
  }

  function close(): void {
    if (ended) return;
    ended = true;
    clearInterval(timer);
    document.removeEventListener("visibilitychange", look);
    place.leave();
    disconnect();
  }

  document.addEventListener("visibilitychange", look);
  look();
  return close;
}
