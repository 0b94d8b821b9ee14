// What the browser keeps for this path of this origin: preferences and history, and for this tab the key.
const PREFIX = `ragray:${new URL(".", location.href).pathname}:`;

/** Return what was kept under a name; storage may be empty, damaged or switched off. */
export function kept(store, name, fallback) {
  try {
    return JSON.parse(store.getItem(PREFIX + name)) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Keep a value; returns whether that worked. */
export function keep(store, name, value) {
  try {
    store.setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export const preferences = { mode: "answer", k: null, earlier: false, language: "", ...kept(localStorage, "preferences", {}) };

export function keepPreferences() {
  keep(localStorage, "preferences", preferences);
}
