import { useEffect, useRef, useState } from "react";

/** Text of a field whose committed form stands in the address. Typing is written there after a pause; a change of the address from elsewhere (back,
 * a link, the palette) is shown in the field.
 */
export function useAddressText(address: string, write: (text: string) => void, milliseconds = 250): [text: string, setText: (text: string) => void] {
  const [text, setText] = useState(address);
  const written = useRef(address);
  const latest = useRef(write);
  useEffect(() => {
    latest.current = write;
  });
  useEffect(() => {
    if (address === written.current) return;
    written.current = address;
    setText(address);
  }, [address]);
  useEffect(() => {
    const next = text.trim();
    if (next === written.current) return;
    const timer = setTimeout(() => {
      written.current = next;
      latest.current(next);
    }, milliseconds);
    return () => clearTimeout(timer);
  }, [text, milliseconds]);
  return [text, setText];
}
