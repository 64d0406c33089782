import type { Problem } from "@/api";

/** What went wrong, in the one shape that the page shows: the API's problem+json, or a lost connection in the same words. */
export class ApiProblem extends Error {
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail);
    this.name = "ApiProblem";
    this.problem = problem;
  }
}

/** What `fetch` says in Chromium, Firefox and Safari; any other TypeError is a mistake of the page. */
const UNREACHABLE = /fetch|load failed|network/i;

/** Any error as a problem. `Aborted` requests stay what they are. */
export function toProblem(error: unknown, response?: Response, path = ""): Problem {
  if (error instanceof ApiProblem) return error.problem;
  if (isProblem(error)) return error;
  if (response) {
    const said = typeof error === "string" ? error.slice(0, 300) : "";
    return made("http_error", `HTTP ${response.status}`, response.status, said || response.statusText, path, "Try again; if it stays, read the API's log.");
  }
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return made("unreachable", "No answer", 0, "The platform has not answered in time.", path, "It may be overloaded or stopped; this page asks again by itself.");
  }
  if (error instanceof TypeError && UNREACHABLE.test(error.message)) {
    return made("unreachable", "No connection", 0, "The platform does not answer.", path, "Is it running? `abruzzi up` starts it.");
  }
  return made("page_error", "Error in this page", 0, error instanceof Error ? error.message : String(error), path, "Reload the page.");
}

export const isUnauthenticated = (error: unknown): boolean => toProblem(error).status === 401;

/** Errors that go away by themselves: nobody should see them before a few tries. */
export const isPassing = (error: unknown): boolean => [0, 502, 503, 504].includes(toProblem(error).status);

function isProblem(error: unknown): error is Problem {
  return typeof error === "object" && error !== null && "code" in error && "detail" in error && "status" in error;
}

export function made(code: string, title: string, status: number, detail: string, instance: string, hint: string): Problem {
  return { type: `urn:abruzzi:problem:${code}`, title, status, detail, instance, code, hint, errors: [], trace_id: "" };
}
