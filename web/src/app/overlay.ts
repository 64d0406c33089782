import { useEffect, useState } from "react";

export type Overlay = "palette" | "keys" | null;

/** Which sheet lies over the page. ⌘K and Ctrl-K work everywhere, also in a field. */
export function useOverlay(): [Overlay, (overlay: Overlay) => void] {
  const [overlay, setOverlay] = useState<Overlay>(null);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key !== "k" || !(event.metaKey || event.ctrlKey)) return;
      event.preventDefault();
      setOverlay((shown) => (shown === "palette" ? null : "palette"));
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return [overlay, setOverlay];
}
