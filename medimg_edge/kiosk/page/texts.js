// The page's words, from texts.json, and numbers and times as the language writes them.

const KEY = "medimg-edge.language";

let all = {};
let language = "en";

/** Reads texts.json and chooses: what was chosen here before, else what the browser asks for. */
export async function load() {
  const response = await fetch(new URL("texts.json", import.meta.url));
  all = await response.json();
  const asked = [kept(KEY), ...navigator.languages].filter(Boolean);
  language =
    asked.map((each) => each.slice(0, 2).toLowerCase()).find((each) => each in all) ?? "en";
}

/** [code, its own name] of each. */
export function languages() {
  return Object.entries(all).map(([code, words]) => [code, words.language]);
}

export function chosen() {
  return language;
}

export function choose(code) {
  language = code;
  keep(KEY, code);
}

/** The language as a tag for `lang` and Intl. */
export function tag() {
  return language === "zh" ? "zh-Hans" : language;
}

/** The words of a key; {name} within is replaced, and {Name} with a capital letter first. */
export function t(key, values = {}) {
  const words = all[language][key];
  if (words === undefined) throw new Error(`no text: ${key}`);
  return words.replace(/\{(\w+)\}/g, (whole, name) => {
    const small = name[0].toLowerCase() + name.slice(1);
    if (!Object.hasOwn(values, small)) return whole;
    const value = String(values[small]);
    return small === name ? value : value.slice(0, 1).toUpperCase() + value.slice(1);
  });
}

export function has(key) {
  return Object.hasOwn(all[language], key);
}

/** A model's label: translated where it is a known word, else as it is. */
export function labelName(label) {
  const key = `label.${label.trim().toLowerCase()}`;
  return has(key) ? t(key) : label;
}

/** [words, language] of a model's intended use: translated where it is that of a known model. */
export function intendedUse(facts) {
  const key = `use.${facts.name}`;
  const known = Object.hasOwn(all.en, key) && all.en[key] === facts.intended_use;
  return known ? [t(key), tag()] : [facts.intended_use, ""];
}

/** A model's probability: 0.873 -> 87.3%. No model is sure, so none is written as 0 or 100 %. */
export function chance(probability) {
  if (probability < 0.0005) return `< ${percent(0.001)}`;
  if (probability >= 0.9995) return `> ${percent(0.999)}`;
  return percent(probability);
}

/** A share that was counted or chosen: 1 -> 100.0%. */
export function percent(share) {
  return new Intl.NumberFormat(tag(), {
    style: "percent",
    minimumFractionDigits: 1,
    maximumFractionDigits: 1,
  }).format(share);
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(tag(), { maximumFractionDigits: digits }).format(value);
}

export function list(words) {
  return new Intl.ListFormat(tag(), { type: "conjunction" }).format(words);
}

/** 14:03 */
export function clock(time) {
  return format(time, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

/** 25 November 2026 */
export function day(time) {
  return format(time, { dateStyle: "long" });
}

/** 25 Nov 2026, 14:03:22 */
export function moment(time) {
  return format(time, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
}

function format(time, options) {
  return new Intl.DateTimeFormat(tag(), options).format(new Date(time));
}

/** What this browser keeps for the page; a browser that keeps nothing is none the worse. */
export function kept(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function keep(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // chosen again at the next start
  }
}
