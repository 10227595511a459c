// One picture's answer in words and numbers, or why there is none and what to do.

import { byId, icon, make } from "./elements.js";
import { scale } from "./scale.js";
import { chance, labelName, moment, number, percent, t } from "./texts.js";
import {
  answered,
  failureOf,
  listed,
  mainFinding,
  meaning,
  taskOf,
  told,
  warnings,
} from "./verdict.js";

const ICONS = {
  positive: "alert",
  negative: "check",
  refer: "question",
  labels: "layers",
  cannot: "question",
};

/**
 * What is open: a prediction, or a problem without one.
 *
 * name: of the file, known to this page alone. again: sends the picture once more, of a file of
 * several the one with that number.
 */
export function render(open, facts, again) {
  const record = open.prediction?.record;
  const problem = open.problem ?? failureOf(record);
  const words = problem ? told(problem, facts) : answered(record);
  const panel = byId("answer");
  panel.dataset.kind = words.kind;
  byId("headline-icon").replaceChildren(icon(ICONS[words.kind]));
  byId("headline").textContent = words.headline;
  byId("todo").replaceChildren(...words.todo.map((each) => make("p", {}, each)));
  byId("file-name").textContent = open.name ?? "";
  byId("numbers").replaceChildren(...(problem ? none(problem, again) : numbers(open.prediction)));
  byId("warnings").replaceChildren(...(problem ? [] : cautions(record)));
  byId("meaning").replaceChildren(...(problem ? [] : explained(open.prediction)));
  byId("details").replaceChildren(...details(open.prediction, problem));
  confirmation(open.prediction);
  return words;
}

/** What a screen reader hears when it is there. */
export function spoken(words, open) {
  const record = open.prediction?.record;
  if (!record || record.status !== "ok") return [words.headline, ...words.todo].join(" ");
  const found = mainFinding(record);
  const values = { label: labelName(found.label) };
  return `${words.headline}. ${t("number.of", values)}: ${chance(found.probability)}.`;
}

function numbers({ record, operating_points: points }) {
  const hasPoint = taskOf(record) !== "multiclass";
  const pointOf = (each) => (hasPoint ? points[each.label] : undefined);
  if (record.findings.length > 1) {
    return listed(record).map((each) => scale(each, pointOf(each), true));
  }
  const found = mainFinding(record);
  const head = make(
    "p",
    { class: "number" },
    make("span", { class: "number-value" }, chance(found.probability)),
    make("span", { class: "number-of" }, t("number.of", { label: labelName(found.label) })),
  );
  return [head, scale(found, pointOf(found), false)];
}

function explained({ record, operating_points: points }) {
  const sentences = meaning(record, points).map((each) => make("p", {}, each));
  if (record.findings.length === 1) return sentences;
  return [make("details", {}, make("summary", {}, t("meaning.title")), ...sentences)];
}

function none(problem, again) {
  if (again && problem.group === "frames") return [frameForm(problem.frames, again)];
  const words = make("p", { class: "no-number" }, t("no-number"));
  return again && problem.isPassing ? [words, againButton(again)] : [words];
}

function againButton(again) {
  const button = make("button", { type: "button", class: "button primary", id: "again" });
  button.append(icon("again"), t("retry"));
  button.addEventListener("click", () => again(null));
  return button;
}

function frameForm(frames, again) {
  const input = make("input", {
    type: "number",
    id: "frame",
    min: 1,
    max: frames,
    value: 1,
    required: true,
    inputmode: "numeric",
    "aria-describedby": "frame-range",
  });
  const form = make(
    "form",
    { class: "frame" },
    make("label", { for: "frame" }, t("frame.number")),
    input,
    make(
      "span",
      { id: "frame-range", class: "hint" },
      t("frame.range", { frames: number(frames) }),
    ),
    make("button", { class: "button primary" }, t("frame.read")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    again(input.valueAsNumber);
  });
  return form;
}

function cautions(record) {
  const said = warnings(record);
  if (!said.length) return [];
  const items = said.map(([words, lang]) => make("li", { lang }, words));
  const head = make("h3", {}, icon("alert"), t("warnings.title"));
  return [head, make("ul", {}, ...items)];
}

function details(prediction, problem) {
  const rows = prediction ? facts(prediction) : [];
  if (problem) rows.push([t("details.code"), problem.code, "en"]);
  const list = make(
    "dl",
    {},
    ...rows.flatMap(([name, value, lang]) => [make("dt", {}, name), make("dd", { lang }, value)]),
  );
  const words = problem?.detail
    ? [
        make("p", { class: "hint" }, t("words-of-station")),
        make("p", { lang: "en" }, problem.detail),
      ]
    : [];
  return [make("summary", {}, t("details.title")), list, ...words];
}

function facts({ id, time, source, input_sha256: input, record, timings }) {
  const rows = [
    [t("details.time"), moment(time)],
    [t("details.id"), id],
    [t("details.source"), t(`source.${source}`)],
    [t("details.input"), input],
  ];
  if (record.frames > 1 && record.frame) {
    const values = { frame: number(record.frame), frames: number(record.frames) };
    rows.push([t("viewer"), t("frame.of", values)]);
  }
  if (record.model) {
    const { name, version, hash } = record.model;
    rows.push([t("about.model"), `${name} ${version}`], [t("details.hash"), hash]);
    rows.push([t("about.artifact"), `${record.artifact}, ${record.runtime}`]);
    if (record.profile) rows.push([t("about.profile"), record.profile]);
    if (record.risk != null) rows.push([t("about.risk"), percent(record.risk)]);
    rows.push([t("details.took"), t("details.ms", { ms: number(timings.answer_ms) })]);
  }
  return rows;
}

function confirmation(prediction) {
  const button = byId("confirm");
  const seen = prediction?.acknowledged;
  button.hidden = !prediction;
  byId("print").hidden = !prediction;
  byId("confirm-words").textContent = t(seen ? "confirm.again" : "confirm");
  const said = byId("confirmed");
  said.hidden = !seen;
  if (!seen) return;
  said.replaceChildren(
    icon("check"),
    make("span", {}, t("confirm.done", { time: moment(seen.time) })),
    seen.comment ? make("q", {}, seen.comment) : "",
  );
}
