// A client of a medimg-edge kiosk for Node 20 and browsers of its own page: fetch, nothing to install.
//     node kiosk.mjs URL IMAGE...          KIOSK_TOKEN=... where the kiosk wants a token,
//                                          NODE_EXTRA_CA_CERTS=ca.crt where its authority is yours
// An image is answered once: what was interrupted is asked again under the same Idempotency-Key.
// What the answers mean: docs/kiosk-api.md of medimg-edge.

const PATIENCE = 60_000; // milliseconds for which it is tried again
const LATER = new Set([503, 507]);
const LATER_CODES = new Set(["key-in-use", "receive-deadline"]);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// code: as in docs/kiosk-api.md; detail: for a person; prediction: the id of an image without answer.
export class KioskError extends Error {
  constructor({ code, detail, status = 0, rejected = false, prediction = null }) {
    super(`[${code}] ${detail}`);
    Object.assign(this, { name: "KioskError", code, detail, status, rejected, prediction });
  }
}

export class Kiosk {
  #url;
  #headers;
  #patience;

  constructor(url = "http://127.0.0.1:8080", { token, patience = PATIENCE } = {}) {
    this.#url = new URL(url);
    this.#headers = token ? { Authorization: `Bearer ${token}` } : {};
    this.#patience = patience;
  }

  // image: a Uint8Array, Blob or ArrayBuffer with a PNG, JPEG, TIFF or DICOM file.
  async predict(image, { frame, key = crypto.randomUUID() } = {}) {
    const headers = { "Content-Type": "application/octet-stream", "Idempotency-Key": key };
    const request = { method: "POST", body: image, headers };
    return (await this.#ask("/v1/predictions", request, { frame })).json();
  }

  async prediction(id) {
    return (await this.#ask(`/v1/predictions/${encodeURIComponent(id)}`)).json();
  }

  // One page, the newest first: {predictions, next}; `before: next` gives the one after.
  async predictions(filters = {}) {
    return (await this.#ask("/v1/predictions", {}, filters)).json();
  }

  // PNG, as a Blob. layer: "overlay", over the image, or "heat", alone.
  async heatmap(id, { label, layer } = {}) {
    const path = `/v1/predictions/${encodeURIComponent(id)}/heatmap`;
    return (await this.#ask(path, {}, { label, layer })).blob();
  }

  async acknowledge(id, comment = "") {
    const headers = { "Content-Type": "application/json" };
    const request = { method: "PUT", body: JSON.stringify({ comment }), headers };
    const path = `/v1/predictions/${encodeURIComponent(id)}/acknowledgement`;
    return (await this.#ask(path, request)).json();
  }

  async model() {
    return (await this.#ask("/v1/model")).json();
  }

  async #ask(path, request = {}, query = {}) {
    const url = new URL(path, this.#url);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null) url.searchParams.set(name, value);
    }
    const headers = { ...this.#headers, ...request.headers };
    for (const end = Date.now() + this.#patience; ; ) {
      let response, problem, later;
      try {
        response = await fetch(url, { ...request, headers, redirect: "error" });
        if (response.ok) return response;
        problem = await problemOf(response);
        later = (LATER.has(problem.status) || LATER_CODES.has(problem.code)) && !problem.prediction;
      } catch (error) {
        const why = error.cause?.message ?? error.message;
        problem = new KioskError({ code: "unreachable", detail: `${url.host}: ${why}` });
        later = true;
      }
      const pause = 1000 * Math.min(Number(response?.headers.get("Retry-After")) || 1, 10);
      if (!later || Date.now() + pause > end) throw problem;
      await sleep(pause);
    }
  }
}

async function problemOf(response) {
  const { status } = response;
  const detail = `The answer was ${status}, and no problem of a kiosk.`;
  try {
    const told = await response.json();
    return new KioskError(told.code ? { ...told, status } : { code: "not-a-kiosk", detail, status });
  } catch {
    return new KioskError({ code: "not-a-kiosk", detail, status });
  }
}

if (globalThis.process?.argv[1]?.endsWith("kiosk.mjs")) {
  const { readFile } = await import("node:fs/promises");
  const [url, ...images] = process.argv.slice(2);
  if (!images.length) {
    console.error("usage: node kiosk.mjs URL IMAGE...");
    process.exit(2);
  }
  const kiosk = new Kiosk(url, { token: process.env.KIOSK_TOKEN });
  for (const image of images) {
    try {
      const { record } = await kiosk.predict(await readFile(image));
      for (const { label, probability, decision } of record.findings) {
        console.log(`${image}: ${label} ${probability.toFixed(3)} ${decision}`);
      }
    } catch (error) {
      console.error(`${image}: no answer: ${error.message}`);
      process.exitCode = 1;
    }
  }
}
