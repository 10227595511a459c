// The picture: drawn from its samples on a canvas, with the evidence over it.

import { byId, make, say } from "./elements.js";
import { listen } from "./gestures.js";
import { heat, samples } from "./service.js";
import { inUnits, shade, spreadOf, windowOf } from "./shade.js";
import { labelName, number, t } from "./texts.js";
import { listed, mainFinding } from "./verdict.js";

const MOST = 16;
const OPACITY = 55;

/**
 * Loads and draws one prediction's picture at a time; the stage's data-drawn says that all of it is
 * there. drawn: called when it can be printed.
 */
export class Viewer {
  constructor(drawn) {
    this.drawn = drawn;
    this.stage = byId("stage");
    this.canvas = byId("canvas");
    this.offscreen = document.createElement("canvas");
    this.sliders = {
      heat: byId("heat"),
      brightness: byId("brightness"),
      contrast: byId("contrast"),
    };
    this.turn = 0;
    this.close();
    this.#wire();
  }

  /** Shows what can be shown of it. hasHeat: whether the model tells where. */
  async open(prediction, hasHeat) {
    this.close();
    const turn = this.turn;
    if (!prediction?.picture) {
      this.#note(prediction?.record.status === "ok" ? "viewer.gone" : "viewer.no-picture");
      this.#done();
      return;
    }
    this.#note("viewer.loading");
    try {
      const picture = await samples(prediction.id);
      if (turn !== this.turn) return;
      this.prediction = prediction;
      this.#show(picture);
      if (hasHeat && prediction.record.status === "ok") await this.#addHeat(turn);
      if (turn === this.turn) this.#done();
    } catch (error) {
      if (turn !== this.turn) return;
      if (!this.picture)
        this.#note(error.code === "picture-gone" ? "viewer.gone" : "viewer.failed");
      this.#done();
    }
  }

  close() {
    this.turn += 1;
    this.prediction = this.picture = this.evidence = this.label = null;
    this.stage.dataset.state = "empty";
    this.stage.dataset.drawn = "false";
    byId("viewer").dataset.heat = "none";
    byId("heat-labels").hidden = true;
    this.#resetSliders();
    this.#draw();
  }

  /** In the language as it is now. */
  render() {
    this.#note(this.noted);
    this.#renderLabels();
    this.#said();
  }

  /** Draws it as it came, whole, into a canvas of its own size; with the evidence or without. */
  drawInto(canvas, withHeat) {
    const { columns, rows } = this.picture;
    canvas.width = columns;
    canvas.height = rows;
    const pixels = new ImageData(columns, rows);
    shade(this.picture, windowOf(this.picture, 0, 0), pixels);
    const context = canvas.getContext("2d");
    context.putImageData(pixels, 0, 0);
    if (withHeat && this.evidence) {
      context.globalAlpha = OPACITY / 100;
      context.drawImage(this.evidence, 0, 0, columns, rows);
    }
  }

  #done() {
    this.stage.dataset.drawn = "true";
    this.drawn();
  }

  async #addHeat(turn) {
    this.label = mainFinding(this.prediction.record).label;
    await this.#loadHeat(turn);
    if (turn !== this.turn) return;
    byId("viewer").dataset.heat = "shown";
    this.#renderLabels();
  }

  async #loadHeat(turn) {
    const { label } = this;
    const evidence = await heat(this.prediction.id, label);
    if (turn !== this.turn || label !== this.label) return;
    this.evidence = evidence;
    this.#draw();
  }

  #show(picture) {
    this.picture = { ...picture, spread: spreadOf(picture.values) };
    this.offscreen.width = picture.columns;
    this.offscreen.height = picture.rows;
    this.pixels = new ImageData(picture.columns, picture.rows);
    this.#note(null);
    this.stage.dataset.state = "shown";
    this.#shade();
    this.#fit();
  }

  #note(key) {
    this.noted = key ?? null;
    byId("stage-note").textContent = key ? t(key) : "";
  }

  #renderLabels() {
    const choice = byId("heat-label");
    if (!this.prediction || !this.label) return;
    const labels = listed(this.prediction.record).map((each) => each.label);
    choice.replaceChildren(
      ...labels.map((label) => make("option", { value: label }, labelName(label))),
    );
    choice.value = this.label;
    byId("heat-labels").hidden = labels.length < 2;
  }

  #shade() {
    if (!this.picture) return;
    const { brightness, contrast } = this.sliders;
    this.window = windowOf(this.picture, Number(brightness.value), Number(contrast.value));
    shade(this.picture, this.window, this.pixels);
    this.offscreen.getContext("2d").putImageData(this.pixels, 0, 0);
    this.#said();
    this.#draw();
  }

  #said() {
    if (!this.picture) return;
    const { level, width } = inUnits(this.picture, this.window);
    const digits = width < 10 ? 2 : 0;
    const values = { level: number(level, digits), width: number(width, digits) };
    byId("window").textContent = t("viewer.window", values);
    for (const each of [this.sliders.brightness, this.sliders.contrast]) {
      each.setAttribute("aria-valuetext", t("viewer.window", values));
    }
  }

  #fit() {
    const { clientWidth, clientHeight } = this.stage;
    if (!this.picture || !clientWidth) return;
    const { columns, rows } = this.picture;
    this.least = Math.min(clientWidth / columns, clientHeight / rows);
    this.scale = this.least;
    this.x = (clientWidth - columns * this.scale) / 2;
    this.y = (clientHeight - rows * this.scale) / 2;
    this.#draw();
  }

  #zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    if (!this.picture) return;
    const scale = Math.min(Math.max(this.scale * factor, this.least), this.least * MOST);
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.#move(0, 0);
  }

  /** What fits stays in the middle; of what does not, no edge comes into the stage. */
  #move(dx, dy) {
    if (!this.picture) return;
    const { clientWidth, clientHeight } = this.stage;
    this.x = within(this.x + dx, clientWidth - this.picture.columns * this.scale);
    this.y = within(this.y + dy, clientHeight - this.picture.rows * this.scale);
    this.#draw();
  }

  #light(dx, dy) {
    const { brightness, contrast } = this.sliders;
    contrast.valueAsNumber += (dx * 200) / this.stage.clientWidth;
    brightness.valueAsNumber -= (dy * 200) / this.stage.clientHeight;
    this.#shade();
  }

  #draw() {
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.picture || !this.scale) return;
    const ratio = window.devicePixelRatio;
    const [x, y, scale] = [this.x * ratio, this.y * ratio, this.scale * ratio];
    context.setTransform(scale, 0, 0, scale, x, y);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.offscreen, 0, 0);
    if (!this.evidence) return;
    context.globalAlpha = this.sliders.heat.valueAsNumber / 100;
    context.drawImage(this.evidence, 0, 0, this.picture.columns, this.picture.rows);
    context.globalAlpha = 1;
  }

  #resetSliders() {
    const { heat: opacity, brightness, contrast } = this.sliders;
    opacity.value = OPACITY;
    brightness.value = contrast.value = 0;
    byId("window").textContent = "";
  }

  #reset() {
    this.#resetSliders();
    this.#shade();
    this.#fit();
  }

  #resize() {
    const ratio = window.devicePixelRatio;
    this.canvas.width = Math.round(this.stage.clientWidth * ratio);
    this.canvas.height = Math.round(this.stage.clientHeight * ratio);
    this.#fit();
  }

  #wire() {
    listen(this.stage, {
      mode: () => document.querySelector("input[name=drag]:checked").value,
      move: (dx, dy) => this.#move(dx, dy),
      zoom: (factor, x, y) => this.#zoom(factor, x, y),
      light: (dx, dy) => this.#light(dx, dy),
      reset: () => this.#reset(),
    });
    byId("zoom-in").addEventListener("click", () => this.#zoom(1.5));
    byId("zoom-out").addEventListener("click", () => this.#zoom(1 / 1.5));
    byId("reset").addEventListener("click", () => this.#reset());
    this.sliders.heat.addEventListener("input", () => this.#draw());
    this.sliders.brightness.addEventListener("input", () => this.#shade());
    this.sliders.contrast.addEventListener("input", () => this.#shade());
    byId("heat-label").addEventListener("change", (event) => {
      this.label = event.target.value;
      this.evidence = null;
      this.#draw();
      this.#loadHeat(this.turn).then(
        () => this.drawn(),
        () => say(t("viewer.failed")),
      );
    });
    new ResizeObserver(() => this.#resize()).observe(this.stage);
  }
}

/** room: what is left beside the picture, below 0 where it is larger than the stage. */
function within(at, room) {
  return room >= 0 ? room / 2 : Math.min(0, Math.max(room, at));
}
