import { connection } from "./connection";

type Handlers = Readonly<Record<string, (data: unknown, id: string) => void>>;

const RETRY_MILLISECONDS = 1000;
const HIDDEN_MILLISECONDS = 30_000;

/** A server-sent stream that comes back: by itself with Last-Event-ID, anew with `url(lastId)` where the browser has given up.
 *
 * A hidden tab lets go after a while: browsers allow six connections a host, and a forgotten tab must not take two of them. The event `end` closes it.
 */
export function openStream(url: (lastId: string | null) => string, handlers: Handlers): () => void {
  let source: EventSource | null = null;
  let lastId: string | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ended = false;

  function connect(): void {
    clearTimeout(timer);
    source?.close();
    const opened = new EventSource(url(lastId));
    source = opened;
    opened.onopen = () => connection.fine();
    opened.onerror = () => {
      connection.trouble();
      if (opened.readyState === EventSource.CLOSED) timer = setTimeout(connect, RETRY_MILLISECONDS);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      opened.addEventListener(name, (event: MessageEvent<string>) => {
        lastId = event.lastEventId || lastId;
        handle(JSON.parse(event.data), event.lastEventId);
      });
    }
    opened.addEventListener("end", () => {
      ended = true;
      opened.close();
    });
  }

  function onVisibility(): void {
    clearTimeout(timer);
    if (ended) return;
    if (document.visibilityState === "visible") {
      if (!source || source.readyState === EventSource.CLOSED) connect();
    } else {
      timer = setTimeout(() => source?.close(), HIDDEN_MILLISECONDS);
    }
  }

  connect();
  document.addEventListener("visibilitychange", onVisibility);
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", onVisibility);
    source?.close();
  };
}
