const READ_MILLISECONDS = 20_000;
const WRITE_MILLISECONDS = 60_000;

/** `fetch` that gives up: the other end may be gone without a word, and a page that waits for ever says nothing. */
export const impatientFetch: typeof fetch = (input, init) => {
  const isRequest = input instanceof Request;
  const method = init?.method ?? (isRequest ? input.method : "GET");
  const given = init?.signal ?? (isRequest ? input.signal : null);
  const patience = AbortSignal.timeout(method === "GET" ? READ_MILLISECONDS : WRITE_MILLISECONDS);
  return fetch(input, { ...init, signal: given ? AbortSignal.any([given, patience]) : patience });
};
