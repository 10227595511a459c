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
    const found = await this.#found();
    if (turn !== this.turn) return;
    Object.assign(this, found);
    this.changed(this);
    if (!document.hidden) this.timer = setTimeout(() => this.look(), PAUSE_MS[this.state]);
  }

  /** The model, too, each time: between two looks the service may have started with another. */
  async #found() {
    try {
      const told = await station();
      const state = told.token_required && !told.signed_in ? "sign-in" : told.state;
      return state === "ready" ? { told, state, facts: (await model()).model } : { told, state };
    } catch (error) {
      return { state: { token: "sign-in", "not-ready": "starting" }[error.code] ?? "away" };
    }
  }
}
