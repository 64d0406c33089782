import { client } from "@/api/client.gen";

import { connection } from "./connection";
import { impatientFetch } from "./patience";
import { ApiProblem, isPassing, toProblem } from "./problem";

/** Sets up the generated client: same origin, the header that proves that no foreign page sent it, errors as ApiProblem. */
export function configureApi(): void {
  client.setConfig({ baseUrl: "", fetch: impatientFetch });
  client.interceptors.request.use((request) => {
    if (request.method === "GET") return request;
    request.headers.set("X-Abruzzi-Request", "1");
    if (request.method === "POST") request.headers.set("Idempotency-Key", randomKey());
    return request;
  });
  client.interceptors.response.use((response) => {
    if (response.ok) connection.fine();
    return response;
  });
  client.interceptors.error.use((error, response, request) => {
    if (error instanceof DOMException && error.name === "AbortError") return error;
    const problem = toProblem(error, response, new URL(request.url, location.origin).pathname);
    if (isPassing(problem)) connection.trouble();
    return new ApiProblem(problem);
  });
}

/** Not crypto.randomUUID: that needs a secure context, and the page may be served by plain HTTP in a trusted network. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
