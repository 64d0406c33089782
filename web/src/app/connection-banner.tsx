import { Unplug } from "lucide-react";
import { useEffect, useRef, useSyncExternalStore } from "react";
import { toast } from "sonner";

import { connection } from "@/lib/connection";
import { span } from "@/lib/format";
import { useNow } from "@/lib/now";

/** Says that what is shown is old, since when, and when it is live again. */
export function ConnectionBanner() {
  const { state, since } = useSyncExternalStore(connection.subscribe, connection.get);
  const lostAt = useRef<number | null>(null);
  useEffect(() => {
    if (state === "lost") lostAt.current = since;
    else if (lostAt.current !== null) {
      toast.success(`Connected again after ${span((since - lostAt.current) / 1000)}`);
      lostAt.current = null;
    }
  }, [state, since]);
  return (
    <div role="status" aria-live="polite">
      {state === "lost" && <Lost since={since} />}
    </div>
  );
}

function Lost({ since }: { since: number }) {
  const now = useNow();
  return (
    <div className="flex items-center gap-2 border-b border-line bg-warn-soft px-4 py-1.5 text-sm">
      <Unplug className="size-3.5 shrink-0 text-warn" aria-hidden />
      <p>
        <strong className="font-medium">Connection lost.</strong> What you see is {span((now - since) / 1000)} old. Runs go on without this page; it tries again every second.
      </p>
    </div>
  );
}
