// One sentence on how the newest pictures differ from those that the model was tested on.

import { byId, icon, make } from "./elements.js";
import { has, labelName, number, percent, t } from "./texts.js";
import { failure } from "./verdict.js";

/** What the station says of files that are no whole picture, all codes together. */
const UNREADABLE = "error";

/** drift: as the station tells it; null where there is none, and nothing is shown. */
export function renderDrift(drift) {
  const place = byId("drift");
  const words = drift ? sentence(drift) : "";
  if (place.textContent === words) return;
  place.replaceChildren(...(words ? [icon("alert"), make("span", {}, words)] : []));
}

function sentence({ kind, number: name, shift, images, label, share }) {
  const what = { code: "code", probability: `probability-${shift}` }[kind] ?? `${name}-${shift}`;
  const key = `drift.${what}`;
  return t(has(key) ? key : "drift.other", {
    images: number(images),
    label: label ? labelName(label) : "",
    share: share === null ? "" : percent(share),
    reason: t(`cannot.${name === UNREADABLE ? "damaged" : failure(name, "").group}`),
  });
}
