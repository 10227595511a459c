// What waits in the folder that is watched, and what was answered.

import { byId, icon, make } from "./elements.js";
import { inbox, predictions } from "./service.js";
import { clock, day, number as written, t } from "./texts.js";
import { brief } from "./verdict.js";

const LIMIT = 50;
const ICONS = {
  positive: "alert",
  negative: "check",
  refer: "question",
  labels: "layers",
  cannot: "dash",
};

/** The answers of today, the newest first, and older ones when they are asked for. */
export class History {
  /** open: called with the id of the one that is chosen. names: file names by id. */
  constructor(open, names) {
    this.open = open;
    this.names = names;
    this.found = new Map();
    this.hasFailed = false;
    byId("open-only").addEventListener("change", () => this.#restart());
    byId("more").addEventListener("click", () => this.#more());
  }

  /** Asks for the newest again; what was loaded besides stays. */
  async refresh() {
    if (this.isOfYesterday) return this.#restart();
    await this.#load({ since: this.since }, (next) => {
      if (this.found.size <= LIMIT && !this.isPast) this.next = next;
    });
  }

  /** One that has changed. */
  put(prediction) {
    if (this.isOpenOnly && prediction.acknowledged) this.found.delete(prediction.id);
    else this.found.set(prediction.id, prediction);
    this.render();
  }

  render() {
    const rows = [...this.found.values()].sort((a, b) => b.time.localeCompare(a.time));
    const focused = document.activeElement?.dataset?.id;
    byId("history").replaceChildren(...this.#grouped(rows));
    if (focused) document.querySelector(`#history [data-id="${focused}"]`)?.focus();
    byId("history-note").textContent = this.#note(rows.length);
    byId("history-count").textContent = written(rows.length);
    byId("more-words").textContent = t(this.next ? "history.more" : "history.earlier");
    byId("more").hidden = this.isAll === true;
  }

  get isOfYesterday() {
    return this.since !== midnight();
  }

  get isOpenOnly() {
    return byId("open-only").checked;
  }

  #note(count) {
    if (this.hasFailed) return t("history.failed");
    if (this.isAll) return t("history.no-earlier");
    if (count) return "";
    return t(this.isOpenOnly ? "history.none-open" : "history.empty");
  }

  async #restart() {
    this.found.clear();
    this.since = midnight();
    this.next = null;
    this.isPast = this.isAll = false;
    await this.#load({ since: this.since }, (next) => {
      this.next = next;
    });
  }

  /** The rest of today, and then the days before. */
  async #more() {
    if (!this.next) this.isPast = true;
    const part = this.isPast ? { until: this.since } : { since: this.since };
    await this.#load({ ...part, before: this.next }, (next) => {
      this.next = next;
      this.isAll = this.isPast && next === null;
    });
  }

  async #load(filters, then) {
    const asked = [this.since, this.isOpenOnly];
    try {
      const acknowledged = this.isOpenOnly ? false : null;
      const page = await predictions({ limit: LIMIT, acknowledged, ...filters });
      if (asked[0] !== this.since || asked[1] !== this.isOpenOnly) return;
      for (const each of page.predictions) this.found.set(each.id, each);
      this.hasFailed = false;
      then(page.next);
    } catch {
      this.hasFailed = true;
    }
    this.render();
  }

  #grouped(rows) {
    const parts = [];
    let last = day(Date.now());
    for (const each of rows) {
      if (day(each.time) !== last) {
        last = day(each.time);
        parts.push(make("li", { class: "row-day" }, last));
      }
      parts.push(make("li", {}, this.#row(each)));
    }
    return parts;
  }

  #row({ id, time, record, acknowledged }) {
    const { kind, words, reason, number } = brief(record);
    const name = this.names.get(id) ?? "";
    const button = make(
      "button",
      { type: "button", class: "row", "data-id": id, "data-kind": kind },
      icon(ICONS[kind]),
      make("span", { class: "row-time" }, clock(time)),
      make(
        "span",
        { class: "row-words" },
        make("span", {}, words),
        make("small", {}, reason),
        make("small", { class: "row-name" }, name),
      ),
      make("span", { class: "row-number" }, number),
      seen(acknowledged),
    );
    button.addEventListener("click", () => this.open(id));
    return button;
  }
}

function seen(acknowledged) {
  const key = acknowledged ? "history.confirmed" : "history.open";
  const mark = make("span", { class: acknowledged ? "row-seen" : "row-open", title: t(key) });
  mark.append(
    icon(acknowledged ? "double-check" : "circle"),
    make("span", { class: "unseen" }, t(key)),
  );
  return mark;
}

/** What lies in the folders, the newest first; what was read from here is marked. */
export class Inbox {
  /** read: called with the item that is chosen. read items: Map of item id to prediction id. */
  constructor(read, answered) {
    this.read = read;
    this.answered = answered;
    this.items = [];
    this.notes = [];
  }

  async refresh() {
    try {
      const found = await inbox();
      const told = JSON.stringify([found, this.answered.size]);
      if (told === this.told) return; // a row that is being touched stays
      this.told = told;
      this.items = found.items;
      this.notes = found.notes ?? [];
    } catch {
      return; // the station's state says it
    }
    this.render();
  }

  render() {
    const focused = document.activeElement?.dataset?.item;
    byId("inbox").replaceChildren(...this.items.map((each) => make("li", {}, this.#row(each))));
    if (focused) document.querySelector(`#inbox [data-item="${CSS.escape(focused)}"]`)?.focus();
    const open = this.items.filter((each) => !this.answered.has(each.id)).length;
    byId("inbox-count").textContent = written(open);
    const notes = this.notes.map((each) => make("p", { lang: "en" }, each));
    if (!this.items.length) notes.push(make("p", {}, t("inbox.empty")));
    byId("inbox-note").replaceChildren(...notes);
  }

  #row(item) {
    const isRead = this.answered.has(item.id);
    const button = make(
      "button",
      { type: "button", class: "row", "data-item": item.id, "data-read": String(isRead) },
      icon(isRead ? "double-check" : "picture"),
      make("span", { class: "row-time" }, clock(item.arrived)),
      make(
        "span",
        { class: "row-words" },
        make("span", { class: "row-name" }, item.name),
        make("small", {}, t(`inbox.${item.kind}`)),
      ),
      make("span", { class: "row-do" }, t("inbox.read")),
    );
    button.addEventListener("click", () => this.read(item));
    return button;
  }
}

/** When today began, as the station is asked. */
function midnight() {
  const now = new Date();
  return new Date(now.getFullYear(), now.getMonth(), now.getDate()).toISOString();
}
