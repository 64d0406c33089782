import { createContext } from "react";

import { type Problem, sessionCreate } from "@/api";
import { made, toProblem } from "@/lib/problem";

/** How the page was opened: a problem when the address carried a token that was refused, or the identity provider sent somebody back without success. */
export type Arrival = { readonly problem: Problem | null };

export const ArrivalContext = createContext<Arrival>({ problem: null });

const FRAGMENT = /[#&](token|problem)=([^&]+)/;

/** What the address may say; the words are ours, so that nobody can put theirs on our page. */
const TURNED_AWAY: Readonly<Record<string, readonly [detail: string, hint: string]>> = {
  sso_no_grant: [
    "The identity provider knows you, but none of your groups gives access here.",
    "Ask an administrator of the platform to grant one of your groups a role.",
  ],
  sso_unreachable: ["The identity provider does not answer.", "Try again in a moment, or sign in with a token."],
  sso_refused: ["Signing in was not finished.", "It may have taken longer than ten minutes. Try again; the API's log says why it failed."],
};

/** `#token=…` from `abruzzi up`: traded for a cookie that scripts cannot read, and gone from the address before anything else happens. */
export async function readAddress(): Promise<Arrival> {
  const [, what, value] = FRAGMENT.exec(location.hash) ?? [];
  if (!what || !value) return { problem: null };
  history.replaceState(history.state, "", location.pathname + location.search);
  if (what === "problem") {
    const words = TURNED_AWAY[value];
    return { problem: words ? made(value, "Not signed in", 403, words[0], "", words[1]) : null };
  }
  try {
    await sessionCreate({ body: { token: decodeURIComponent(value) }, throwOnError: true });
    return { problem: null };
  } catch (error) {
    return { problem: toProblem(error) };
  }
}
