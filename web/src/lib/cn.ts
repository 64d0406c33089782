import { clsx, type ClassValue } from "clsx";

/** Class names, joined; falsy ones are left out. */
export const cn = (...names: ClassValue[]): string => clsx(names);
