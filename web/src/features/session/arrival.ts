import { createContext } from "react";

import type { Problem } from "@/api";

/** How the page was opened: a problem when the address carried a token that was refused. */
export type Arrival = { readonly problem: Problem | null };

export const ArrivalContext = createContext<Arrival>({ problem: null });
