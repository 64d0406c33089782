import { useState } from "react";

/** What Enter takes in a list that changes while somebody types: what was highlighted while it is there, else the first. For cmdk's `value`. */
export function useHighlight(values: readonly string[]): { value: string; onValueChange: (value: string) => void } {
  const [chosen, setChosen] = useState("");
  return { value: values.includes(chosen) ? chosen : (values[0] ?? ""), onValueChange: setChosen };
}
