import { useSyncExternalStore } from "react";

export type Theme = "system" | "light" | "dark";
const KEY = "abruzzi-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const watchers = new Set<() => void>();
system.addEventListener("change", tell);

export function setTheme(theme: Theme): void {
  if (theme === "system") {
    delete document.documentElement.dataset.theme;
    localStorage.removeItem(KEY);
  } else {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(KEY, theme);
  }
  tell();
}

export const chosenTheme = (): Theme => (document.documentElement.dataset.theme as Theme | undefined) ?? "system";

/** The theme that was chosen. */
export const useTheme = (): Theme => useSyncExternalStore(subscribe, chosenTheme);

/** What is seen: for canvas, which has no CSS. */
export const useIsDark = (): boolean => useSyncExternalStore(subscribe, isDark);

/** A token's colour as canvas understands it; resolves light-dark() and color-mix(). */
export function resolveColor(color: string): string {
  const key = `${isDark() ? "dark" : "light"} ${color}`;
  const known = resolved.get(key);
  if (known) return known;
  const probe = document.createElement("span");
  probe.style.color = color;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  resolved.set(key, value);
  return value;
}

const resolved = new Map<string, string>();

function isDark(): boolean {
  const theme = chosenTheme();
  return theme === "system" ? system.matches : theme === "dark";
}

function subscribe(watcher: () => void): () => void {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

function tell(): void {
  for (const watcher of watchers) watcher();
}
