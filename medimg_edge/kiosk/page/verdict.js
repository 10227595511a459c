// What a prediction says, for a person: its kind, its words, and what to do next.

import { chance, labelName, list, number, percent, t } from "./texts.js";

/** The codes that mean the same to a person; a group has two texts, cannot.GROUP and do.GROUP. */
export const GROUPS = {
  damaged: ["input-empty", "input-truncated", "dicom-invalid"],
  "not-an-image": ["input-not-an-image", "media-type"],
  unsupported: ["input-unsupported", "dicom-transfer-syntax"],
  "no-pixels": ["dicom-no-pixels"],
  "too-large": ["input-too-large", "body-too-large"],
  "too-small": ["too-small"],
  blank: ["blank"],
  faint: ["low-contrast"],
  cropped: ["cropped"],
  inverted: ["inverted"],
  unlike: ["not-like-training"],
  "wrong-kind": ["wrong-modality", "wrong-body-part", "wrong-view", "unit-unknown"],
  "own-result": ["own-result"],
  stopped: ["answer-stopped", "model-deadline"],
  fault: ["machine", "model-load", "model-output", "model-not-finite", "unexpected"],
  disk: ["disk-low", "write"],
  busy: ["busy", "key-in-use"],
  "not-ready": ["not-ready", "bundle-golden"],
  untrusted: [
    "model-refused",
    "signature-missing",
    "signature-invalid",
    "signer-unknown",
    "signer-revoked",
  ],
  slow: ["receive-deadline"],
  away: ["away"],
  address: ["host-unknown", "origin-foreign"],
  token: ["token"],
  gone: ["not-found", "picture-gone", "input-missing"],
  unreadable: ["unreadable"],
};
const GROUP_OF = new Map(
  Object.entries(GROUPS).flatMap(([group, codes]) => codes.map((code) => [code, group])),
);

/** Where another try of the same bytes may end otherwise. */
const PASSING = new Set([
  "stopped",
  "fault",
  "busy",
  "not-ready",
  "slow",
  "away",
  "token",
  "other",
]);

const FRAMES = /^The DICOM file has (\d+) frames/;

/** The station's warnings, and what the page says for them; the rest is shown as it came. */
const WARNINGS = [
  [/^The header does not say the modality; .+ reads (?<reads>.+)\.$/s, "unsaid.modality"],
  [/^The header does not say the body part; .+ reads (?<reads>.+)\.$/s, "unsaid.body-part"],
  [/^The header does not say the view; .+ reads (?<reads>.+)\.$/s, "unsaid.view"],
  [
    /^The header's .+ is said in a word that is not known here; .+ reads (?<reads>.+)\.$/s,
    "unknown",
  ],
  [/^Answered by force: The image is not like those /, "unlike"],
  [/^Answered by force: Black and white /, "inverted"],
  [/^Answered by force: The image (?:is a strip|fills) /, "cropped"],
  [/^Answered by force: The image has /, "faint"],
  [/^Answered by force: .* is (?<word>\S+); .+ reads (?<reads>.+)\.$/s, "forced"],
  [/^The header's .+ is (?<word>\S+?)(?:, which means other)?; .+ reads (?<reads>.+)\.$/s, "near"],
  [/^The header says that text is burned into the pixels/, "burned-in"],
  [/^The image has been compressed with loss\.$/, "lossy"],
  [/^The pixels are linear to the beam's intensity/, "raw"],
  [/^Pixel padding is declared/, "padding"],
  [/ disagree; taken as (?:inverted|signed)\.$/, "contradiction"],
  [/: the window is not used\.$/, "window"],
];

/** What the page knows of a picture that has no answer. */
export function failure(code, detail, frames = framesOf(code, detail)) {
  const group = frames > 1 ? "frames" : (GROUP_OF.get(code) ?? "other");
  return { code, detail, group, frames, isPassing: PASSING.has(group) };
}

/** How many pictures a file holds that was refused because one of them has to be named. */
function framesOf(code, detail) {
  const found = code === "input-unsupported" && FRAMES.exec(detail);
  return found ? Number(found[1]) : null;
}

/** The failure of a record; null where it is an answer. */
export function failureOf(record) {
  return record.status === "ok" ? null : failure(record.code, record.message);
}

/** Why there is no answer, and what to do. facts: of the model, or null. */
export function told(problem, facts) {
  return {
    kind: "cannot",
    headline: t("answer.cannot", { reason: t(`cannot.${problem.group}`) }),
    todo: [
      t(`do.${problem.group}`, { reads: reads(facts) }),
      ...(problem.group === "frames" ? [] : [t("without")]),
    ],
  };
}

/** An answer's kind (positive, negative, refer, labels), headline and what to do. */
export function answered(record) {
  const kind = kindOf(record);
  return { kind, headline: headline(kind, record), todo: [t(TODO[kind])] };
}

const TODO = {
  positive: "do.positive",
  negative: "do.negative",
  refer: "do.refer",
  labels: "do.multiclass",
};

/** binary, multiclass or multilabel, by the form of a record: the model may be another by now. */
export function taskOf(record) {
  if (record.label === null) return "multilabel";
  return record.findings.length > 1 ? "multiclass" : "binary";
}

function kindOf(record) {
  if (taskOf(record) === "multiclass") return "labels";
  const decisions = record.findings.map((each) => each.decision);
  return ["positive", "refer"].find((each) => decisions.includes(each)) ?? "negative";
}

function headline(kind, record) {
  const { findings } = record;
  if (kind === "labels") return t("answer.multiclass", { label: labelName(record.label) });
  if (kind === "refer") return t("answer.refer");
  if (kind === "negative" && findings.length > 1) {
    return t("answer.none-of", { count: number(findings.length) });
  }
  const said = findings.filter((each) => each.decision === kind);
  if (said.length > 1) return t("answer.several", { count: number(said.length) });
  return t(`answer.${kind}`, { label: labelName(said[0].label) });
}

/** For the list: its kind and words, and its number, or why it has none. */
export function brief(record) {
  if (record.status !== "ok") {
    const reason = t(`cannot.${failureOf(record).group}`);
    return { kind: "cannot", words: t("short.cannot"), reason, number: "" };
  }
  const kind = kindOf(record);
  if (kind === "labels") {
    const words = labelName(record.label);
    return { kind, words, reason: "", number: chance(record.probability) };
  }
  const said = record.findings.filter((each) => each.decision === kind);
  const names = list(said.map((each) => labelName(each.label)));
  const largest = Math.max(...said.map((each) => each.probability));
  const words = t(`short.${kind}`, { label: names });
  return { kind, words, reason: "", number: chance(largest) };
}

/** Sentences on what the numbers of a record mean. points: by label, as they were then. */
export function meaning(record, points) {
  if (taskOf(record) === "multiclass") return [t("meaning.multiclass", { all: percent(1) })];
  const { label } = mainFinding(record);
  const name = labelName(label);
  const sentences = [t(record.profile ? "meaning.site" : "meaning.model", { label: name })];
  const point = points[label];
  if (point) sentences.push(...ofPoint(point, name));
  return sentences;
}

function ofPoint(point, label) {
  if (point.refer) {
    return [t("meaning.band", { low: percent(point.refer[0]), high: percent(point.refer[1]) })];
  }
  const values = { point: percent(point.threshold), label };
  const isMeasured = point.sensitivity != null && point.specificity != null;
  const first = isMeasured
    ? t("meaning.point", {
        ...values,
        sensitivity: percent(point.sensitivity),
        specificity: percent(point.specificity),
      })
    : t("meaning.point-bare", values);
  return [first];
}

/** The finding that the number is of: the answered label's, else the first that is listed. */
export function mainFinding(record) {
  return record.findings.find((each) => each.label === record.label) ?? listed(record)[0];
}

/** The findings as they are listed: what is likely first, and of these the most probable. */
export function listed(record) {
  return record.findings.toSorted(
    (a, b) => rank(a) - rank(b) || b.probability - a.probability,
  );
}

function rank({ decision }) {
  return { positive: 0, refer: 1 }[decision] ?? 2;
}

/** [words, language] of each warning; language is null where it is the page's. */
export function warnings(record) {
  return (record.warnings ?? []).map((words) => {
    for (const [pattern, key] of WARNINGS) {
      const found = pattern.exec(words);
      if (found) return [t(`warning.${key}`, found.groups ?? {}), null];
    }
    return [words, "en"];
  });
}

/** What kind of images a model reads, in the Standard's words. */
export function reads(facts) {
  const given = facts ? [facts.modality, facts.body_part, facts.view] : [];
  return (
    given
      .filter((each) => each.length)
      .map((each) => each.join(", "))
      .join("; ") || "–"
  );
}
