// What is asked for, or told, over the page: signing in, confirming, about the model.

import { byId, make } from "./elements.js";
import { acknowledge, signIn } from "./service.js";
import { intendedUse, labelName, moment, number, percent, t } from "./texts.js";
import { reads } from "./verdict.js";

/** Asks for the token until it is right. done: called then. */
export function askToken(done) {
  const dialog = byId("sign-in");
  if (dialog.open) return;
  const form = byId("sign-in-form");
  const token = byId("token");
  const wrong = byId("sign-in-wrong");
  wrong.textContent = "";
  token.value = "";
  dialog.oncancel = (event) => event.preventDefault();
  form.onsubmit = async (event) => {
    event.preventDefault();
    try {
      await signIn(token.value);
    } catch (error) {
      wrong.textContent = t(error.code === "away" ? "away.title" : "sign-in.wrong");
      token.select();
      return;
    }
    token.value = "";
    dialog.close();
    done();
  };
  dialog.showModal();
  token.focus();
}

/** Asks for a comment on an answer. done: called with the prediction as it is then. */
export function askComment(id, done) {
  const dialog = byId("confirming");
  const comment = byId("comment");
  const failed = byId("confirm-failed");
  failed.textContent = "";
  comment.value = "";
  let isSent = false;
  byId("confirm-form").onsubmit = async (event) => {
    event.preventDefault();
    if (isSent) return;
    isSent = true;
    const kept = await acknowledge(id, comment.value.trim()).catch(() => null);
    isSent = false;
    if (kept) {
      dialog.close();
      done(kept);
    } else {
      failed.textContent = t("confirm.failed");
    }
  };
  dialog.showModal();
}

/** What answers here and how good it was; and what the station keeps. */
export function about(facts, state, release) {
  const rows = [...(facts ? ofModel(facts) : []), ...ofStation(state, release)];
  byId("about-facts").replaceChildren(
    ...rows.flatMap(([name, value, lang]) => [make("dt", {}, name), make("dd", { lang }, value)]),
  );
  byId("about").showModal();
}

/** Buttons with data-close end the dialog that they are in. */
export function wire() {
  for (const each of document.querySelectorAll("[data-close]")) {
    each.addEventListener("click", () => each.closest("dialog").close());
  }
}

function ofModel(facts) {
  const [use, lang] = intendedUse(facts);
  return [
    [t("about.model"), `${facts.name} ${facts.version}`],
    [t("intended-use"), use, lang || "en"],
    [t("about.reads"), reads(facts)],
    [t("about.labels"), facts.labels.join(", ")],
    ...Object.entries(facts.operating_points).map(ofPoint),
    ...(facts.risk == null ? [] : [[t("about.risk"), percent(facts.risk)]]),
    [t("details.hash"), facts.hash],
    [t("about.artifact"), `${facts.artifact}, ${facts.runtime}`],
    [t("about.profile"), facts.profile ?? t("about.no-profile")],
    [t("about.signer"), facts.signer ?? t("about.no-signer")],
    [t("about.golden"), golden(facts.golden)],
  ];
}

function ofPoint([label, { threshold, sensitivity, specificity }]) {
  const measured =
    sensitivity == null || specificity == null
      ? ""
      : `; ${t("about.measured", {
          sensitivity: percent(sensitivity),
          specificity: percent(specificity),
        })}`;
  return [`${t("about.point")}: ${labelName(label)}`, percent(threshold) + measured];
}

function golden({ cases, passed_at: time }) {
  return t("about.golden-passed", { cases: number(cases), time: moment(time) });
}

function ofStation(state, release) {
  const rows = [[t("about.release"), `medimg-edge ${release}`]];
  const { retention, record } = state ?? {};
  if (retention) rows.push([t("about.kept"), keeps(retention)]);
  if (record) {
    const values = { entries: number(record.entries), head: record.head.slice(0, 16) };
    rows.push([t("about.record"), t("about.entries", values)]);
  }
  return rows;
}

function keeps({ images_days: images, records_days: records }) {
  const pictures = images
    ? t("about.images-days", { days: number(images, 1) })
    : t("about.images-none");
  const answers = records
    ? t("about.records-days", { days: number(records, 1) })
    : t("about.records-ever");
  return `${pictures}; ${answers}`;
}
