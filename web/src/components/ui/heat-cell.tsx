import { cn } from "@/lib/cn";
import { heat } from "@/lib/heat";

type Props = {
  /** For who hears it: which row and column. */
  name: string;
  /** 0 to 1; null has no colour. */
  rate: number | null;
  value: string;
  /** What the value is worth: n and interval. */
  about: string;
  more?: string | null;
  isStrong?: boolean;
  title: string;
  onOpen: () => void;
};

/** A cell of a heat map: colour is never the only sign, and a click opens what it was counted from. */
export function HeatCell({ name, rate, value, about, more = null, isStrong = false, title, onOpen }: Props) {
  return (
    <button
      type="button"
      title={title}
      onClick={onOpen}
      style={rate === null ? undefined : { backgroundColor: heat(rate) }}
      className="relative flex h-full w-full min-w-28 flex-col rounded-sm px-2 py-1 text-left -outline-offset-2 hover:ring-1 hover:ring-line-strong"
    >
      <span className="sr-only">{name}: </span>
      <span className={cn(isStrong && "font-semibold", rate === null && "text-muted")}>{value}</span>
      <span className="text-sm whitespace-nowrap text-text">{about}</span>
      {more !== null && <span className="text-sm text-text">{more}</span>}
    </button>
  );
}
