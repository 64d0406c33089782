import { Kbd } from "@/components/ui/code";
import { Dialog } from "@/components/ui/dialog";
import { mountedShortcuts, type Shortcut } from "@/lib/keys";

/** Every shortcut that works on the page as it is now. */
export default function KeySheet({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keyboard" open onClose={onClose}>
      <Groups />
    </Dialog>
  );
}

function Groups() {
  const groups = new Map<string, Shortcut[]>();
  for (const shortcut of mountedShortcuts()) groups.set(shortcut.where, [...(groups.get(shortcut.where) ?? []), shortcut]);
  return (
    <div className="flex flex-col gap-4">
      {[...groups].map(([where, shortcuts]) => (
        <section key={where}>
          <h3 className="mb-1 text-sm font-medium text-muted">{where}</h3>
          <dl className="grid grid-cols-[1fr_auto] gap-y-1">
            {shortcuts.map(({ keys, what }) => (
              <div key={keys} className="contents">
                <dt>{what}</dt>
                <dd className="flex gap-1 justify-self-end">
                  {keys.split(" ").map((key) => (
                    <Kbd key={key}>{key}</Kbd>
                  ))}
                </dd>
              </div>
            ))}
            {where === "Everywhere" && (
              <>
                <dt>Search and act</dt>
                <dd className="flex gap-1 justify-self-end">
                  <Kbd>⌘K</Kbd>
                  <Kbd>Ctrl K</Kbd>
                </dd>
              </>
            )}
          </dl>
        </section>
      ))}
    </div>
  );
}
