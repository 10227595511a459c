// How a picture comes in: dropped, chosen, or from the folder that is watched.

import { byId, say } from "./elements.js";
import { predict, predictItem, prediction as find, Refused } from "./service.js";
import { number, t } from "./texts.js";
import { failure, failureOf } from "./verdict.js";

/**
 * A picture that is to be read, and everything this page knows of it.
 *
 * name: of the file; it stays in this page. send: asks for the answer, of several frames that one.
 * renew: what was kept of it is not asked for again; the next send is a new question.
 */
export function fromFile(file) {
  let key = fresh();
  return {
    name: file.name,
    send: (frame, waits) => predict(file, { key, frame, ...waits }),
    renew() {
      key = fresh();
    },
  };
}

export function fromItem(item) {
  return {
    name: item.name,
    item: item.id,
    send: (frame, waits) => predictItem(item.id, { frame, ...waits }),
    renew() {},
  };
}

/** Takes pictures one at a time. began, done: called; with {prediction, problem, attempt, name}. */
export class Intake {
  constructor(began, done) {
    this.began = began;
    this.done = done;
    this.sending = null;
    this.#wire();
  }

  /** In the language as it is now. */
  render() {
    if (this.noted) byId("intake-note").textContent = t(this.noted);
    if (byId("wait-note").textContent) byId("wait-note").textContent = t("intake.wait");
  }

  async read(attempt, frame = null) {
    if (this.sending) {
      this.#refuse();
      return;
    }
    this.sending = new AbortController();
    this.began();
    this.#note(null);
    this.#waits(true);
    byId("wait-name").textContent = attempt.name ?? "";
    const waits = { signal: this.sending.signal, waiting: () => this.#busy() };
    const ended = await answer(attempt, frame, waits);
    this.sending = null;
    this.#waits(false);
    if (ended) this.done({ ...ended, attempt, name: attempt.name });
    else byId("choose").focus();
  }

  #waits(isWaiting) {
    document.body.dataset.waiting = String(isWaiting);
    byId("lists").inert = isWaiting;
    byId("wait-note").textContent = "";
    byId("wait").hidden = !isWaiting;
    byId("wait-busy").hidden = true;
    clearInterval(this.ticking);
    if (!isWaiting) return;
    const since = Date.now();
    const tick = () => {
      const seconds = Math.floor((Date.now() - since) / 1000);
      byId("wait-seconds").textContent = t("wait.seconds", { seconds: number(seconds) });
    };
    tick();
    this.ticking = setInterval(tick, 1000);
    say(t("wait.title"));
    byId("wait-cancel").focus();
  }

  #busy() {
    byId("wait-busy").hidden = false;
    say(t("wait.busy"));
  }

  /** What came while another is being read: it must not be taken for that one. */
  #refuse() {
    byId("wait-note").textContent = t("intake.wait");
    say(t("intake.wait"));
  }

  #note(key) {
    this.noted = key;
    byId("intake-note").textContent = key ? t(key) : "";
  }

  #take(files) {
    if (document.body.dataset.state !== "ready" || document.querySelector("dialog[open]")) return;
    if (this.sending) {
      this.#refuse();
      return;
    }
    if (files.length === 1) {
      this.read(fromFile(files[0]));
      return;
    }
    this.began();
    this.#note(files.length ? "intake.one" : "intake.none");
  }

  #wire() {
    const input = byId("file");
    byId("choose").addEventListener("click", () => input.click());
    byId("wait-cancel").addEventListener("click", () => this.sending?.abort());
    input.addEventListener("change", () => {
      this.#take([...input.files]);
      input.value = "";
    });
    const { body } = document;
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      body.dataset.dragging = "true";
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) body.dataset.dragging = "false";
    });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      body.dataset.dragging = "false";
      this.#take([...event.dataTransfer.files]);
    });
  }
}

/** {prediction} or {problem}, or both; null where it was called off. */
async function answer(attempt, frame, waits) {
  try {
    return { prediction: await attempt.send(frame, waits) };
  } catch (error) {
    if (error.name === "AbortError") return null;
    if (!(error instanceof Refused)) return { problem: failure("unreadable", error.message) };
    if (error.prediction) attempt.renew();
    return unanswered(error);
  }
}

/** What the record holds of a picture without an answer, where it holds anything. */
async function unanswered(error) {
  const problem = failure(error.code, error.message);
  if (!error.prediction) return { problem };
  try {
    const prediction = await find(error.prediction);
    return { prediction, problem: failureOf(prediction.record) ?? problem };
  } catch {
    return { problem };
  }
}

/** 128 random bits, in hexadecimal. */
function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((each) => each.toString(16).padStart(2, "0")).join("");
}
