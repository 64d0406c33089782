/** The tokens' colours between bad (0) and ok (1), faint enough to read on. Pure. */
export const heat = (rate: number): string => `color-mix(in oklab, color-mix(in oklab, var(--ok) ${(100 * rate).toFixed(1)}%, var(--bad)) 26%, transparent)`;
