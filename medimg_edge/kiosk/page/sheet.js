// What is printed: one page for the patient's file, with room for names by hand.

import { byId, make } from "./elements.js";
import { chance, intendedUse, labelName, moment, percent, t } from "./texts.js";
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

/** Writes it anew. facts: of the model, or null. viewer: with the picture, where there is one. */
export function render(open, facts, viewer) {
  const { prediction } = open;
  const sheet = byId("sheet");
  if (!prediction) {
    sheet.replaceChildren();
    return;
  }
  const { record } = prediction;
  const problem = failureOf(record);
  const words = problem ? told(problem, facts) : answered(record);
  sheet.replaceChildren(
    head(prediction),
    make("p", { class: "sheet-headline" }, words.headline),
    make("p", {}, words.todo.join(" ")),
    ...(problem ? [make("p", {}, t("no-number"))] : numbers(prediction)),
    ...cautions(problem ? {} : record),
    pictures(viewer, record),
    table(prediction, facts, problem),
    ...byHand(prediction),
    make("p", { class: "sheet-foot" }, t("sheet.printed", { time: moment(Date.now()) })),
  );
}

function head({ time }) {
  return make(
    "header",
    {},
    make("h1", {}, t("sheet.title")),
    make("p", {}, make("strong", {}, t("support")), ` ${moment(time)}`),
  );
}

function numbers({ record, operating_points: points }) {
  const hasPoint = taskOf(record) !== "multiclass";
  const rows = listed(record).map((each) => {
    const point = hasPoint ? points[each.label] : undefined;
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, labelName(each.label)),
      make("td", {}, chance(each.probability)),
      make("td", {}, point ? t("scale.point", { point: percent(point.threshold) }) : ""),
      make("td", {}, point ? t(`decision.${each.decision}`) : ""),
    );
  });
  const table = make("table", { class: "sheet-numbers" }, make("tbody", {}, ...rows));
  table.dataset.many = String(rows.length > 8);
  return [table, make("p", { class: "sheet-small" }, meaning(record, points).join(" "))];
}

function cautions(record) {
  const said = warnings(record);
  if (!said.length) return [];
  const spans = said.map(([words, lang]) => make("span", { lang }, `${words} `));
  const head = make("strong", {}, `${t("warnings.title")}: `);
  return [make("p", { class: "sheet-small" }, head, ...spans)];
}

function pictures(viewer, record) {
  const row = make("div", { class: "sheet-pictures" });
  if (!viewer.picture) return row;
  row.append(figure(viewer, false, t("sheet.plain")));
  if (viewer.evidence) {
    const label = labelName(viewer.label ?? mainFinding(record).label);
    row.append(figure(viewer, true, `${t("sheet.heat", { label })}. ${t("viewer.heat-means")}`));
  }
  return row;
}

function figure(viewer, withHeat, words) {
  const canvas = make("canvas");
  viewer.drawInto(canvas, withHeat);
  return make("figure", {}, canvas, make("figcaption", {}, words));
}

function table(prediction, facts, problem) {
  const { record } = prediction;
  const model = record.model ?? facts;
  const rows = [
    [t("details.id"), prediction.id],
    [t("details.input"), prediction.input_sha256],
    [t("details.source"), t(`source.${prediction.source}`)],
  ];
  if (problem) rows.push([t("details.code"), problem.code]);
  if (model) {
    rows.push([t("about.model"), `${model.name} ${model.version}`]);
    rows.push([t("details.hash"), model.hash]);
  }
  if (record.artifact) rows.push([t("about.artifact"), `${record.artifact}, ${record.runtime}`]);
  if (record.profile) rows.push([t("about.profile"), record.profile]);
  if (record.risk != null) rows.push([t("about.risk"), percent(record.risk)]);
  if (facts && model.hash === facts.hash) {
    const [words, lang] = intendedUse(facts);
    rows.push([t("intended-use"), make("span", { lang: lang || "en" }, words)]);
  }
  return make(
    "table",
    { class: "sheet-facts" },
    make(
      "tbody",
      {},
      ...rows.map(([name, value]) =>
        make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)),
      ),
    ),
  );
}

function byHand({ acknowledged }) {
  const fields = ["sheet.patient", "sheet.read-by", "sheet.signature"];
  const lines = make("div", { class: "sheet-hand" }, ...fields.map((key) => make("p", {}, t(key))));
  if (!acknowledged) return [lines];
  const done = t("confirm.done", { time: moment(acknowledged.time) });
  const comment = acknowledged.comment ? ` ${t("sheet.comment")}: ${acknowledged.comment}` : "";
  return [make("p", { class: "sheet-small" }, done + comment), lines];
}
