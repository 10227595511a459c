// Asks the station again and again how it is.

import { model, station } from "./service.js";

const PAUSE_MS = { starting: 700, away: 2000, refused: 10_000, ready: 5000, "sign-in": 10_000 };

/** changed: called after every look with what is known. */
export class Watch {
  constructor(changed) {
    this.changed = changed;
    this.state = "starting";
    this.told = null;
    this.facts = null;
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.look();
    });
  }

  /** Looks now, and then after a pause that fits what was found. */
  async look() {
    clearTimeout(this.timer);
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const before = this.state;
    try {
      this.told = await station();
      this.state = this.told.token_required && !this.told.signed_in ? "sign-in" : this.told.state;
      if (this.state === "ready" && (before !== "ready" || !this.facts)) {
        this.facts = (await model()).model;
      }
    } catch (error) {
      this.state = { token: "sign-in", "not-ready": "starting" }[error.code] ?? "away";
    }
    if (turn !== this.turn) return;
    this.changed(this);
    if (!document.hidden) this.timer = setTimeout(() => this.look(), PAUSE_MS[this.state]);
  }
}
