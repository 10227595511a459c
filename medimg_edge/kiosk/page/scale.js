// A probability on a line from 0 to 1, with the operating point on it.

import { make } from "./elements.js";
import { chance, labelName, percent, t } from "./texts.js";

/** finding: of a record. point: its operating point, where it has one. isNamed: with its label. */
export function scale(finding, point, isNamed) {
  const line = make("div", { class: "scale", role: "img", "aria-label": said(finding, point) });
  line.dataset.decision = point ? finding.decision : "none";
  line.style.setProperty("--p", finding.probability);
  line.append(make("span", { class: "scale-fill" }));
  if (point) {
    line.style.setProperty("--point", point.threshold);
    if (point.refer) line.append(band(line, point.refer));
    line.append(make("span", { class: "scale-point" }));
  }
  line.append(make("span", { class: "scale-mark" }));
  return make(
    "div",
    { class: isNamed ? "finding named" : "finding" },
    isNamed ? name(finding, point) : null,
    line,
    isNamed ? null : legend(point),
  );
}

function said(finding, point) {
  const values = {
    label: labelName(finding.label),
    probability: chance(finding.probability),
    point: point ? percent(point.threshold) : "",
  };
  return t(point ? "scale.said" : "scale.said-plain", values);
}

function band(line, [low, high]) {
  line.style.setProperty("--low", low);
  line.style.setProperty("--high", high);
  return make("span", { class: "scale-band" });
}

function name(finding, point) {
  const decision = point ? t(`decision.${finding.decision}`) : "";
  return make(
    "div",
    { class: "finding-name" },
    make("span", { class: "finding-label" }, labelName(finding.label)),
    make("span", { class: `finding-decision ${point ? finding.decision : ""}` }, decision),
    make("span", { class: "finding-number" }, chance(finding.probability)),
  );
}

/** Under the line: 0 %, the operating point where it lies, and 100 %. */
function legend(point) {
  const legends = make("div", { class: "legend", "aria-hidden": "true" });
  legends.append(make("span", { class: "legend-low" }, t("scale.below")));
  if (point) {
    const at = make("span", { class: "legend-point" });
    at.append(t("scale.point", { point: percent(point.threshold) }));
    legends.append(at);
  }
  legends.append(make("span", { class: "legend-high" }, t("scale.above")));
  return legends;
}
