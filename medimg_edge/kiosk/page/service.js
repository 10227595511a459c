// The station's HTTP interface, version 1.

/** Types that are said of a file; any other is told by its content. */
const TYPES = new Set(["image/png", "image/jpeg", "image/tiff", "application/dicom"]);

const PAUSE_MS = 2000;
const TRIES = 5;

/** A station that says nothing for so long is away. */
const LOOK_MS = 8000;
const soon = () => AbortSignal.timeout(LOOK_MS);

/** A request that was not answered as hoped: the station's code, its words, and the record's id. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail ?? "");
    this.code = problem.code ?? "unexpected";
    this.status = problem.status ?? 0;
    this.prediction = problem.prediction ?? null;
  }
}

export const station = () => json("GET", "/v1/station", null, {}, soon());
export const model = () => json("GET", "/v1/model", null, {}, soon());
export const inbox = () => json("GET", "/v1/inbox");
export const prediction = (id) => json("GET", `/v1/predictions/${encodeURIComponent(id)}`);
export const signOut = () => request("DELETE", "/v1/session");

export function signIn(token) {
  return request("PUT", "/v1/session", JSON.stringify({ token }), {
    "Content-Type": "application/json",
  });
}

export function predictions(filters) {
  const given = Object.entries(filters).filter(
    ([, value]) => value !== null && value !== undefined,
  );
  return json("GET", `/v1/predictions?${new URLSearchParams(given)}`);
}

export function acknowledge(id, comment) {
  const path = `/v1/predictions/${encodeURIComponent(id)}/acknowledgement`;
  return json("PUT", path, JSON.stringify({ comment }), { "Content-Type": "application/json" });
}

/** Sends a file's bytes, without its name. key: the same for each try of the same picture. */
export function predict(file, { key, frame, signal, waiting }) {
  const headers = {
    "Content-Type": TYPES.has(file.type) ? file.type : "application/octet-stream",
    "Idempotency-Key": key,
  };
  return patiently(() => json("POST", `/v1/predictions${ofFrame(frame)}`, file, headers, signal), {
    signal,
    waiting,
  });
}

export function predictItem(id, { frame, signal, waiting }) {
  const path = `/v1/inbox/${encodeURIComponent(id)}/predictions${ofFrame(frame)}`;
  return patiently(() => json("POST", path, null, {}, signal), { signal, waiting });
}

/** An image's values: typed array, and how they are displayed. */
export async function samples(id) {
  const response = await request("GET", `/v1/predictions/${encodeURIComponent(id)}/samples`);
  const fact = (name) => Number(response.headers.get(`X-${name}`));
  const bytes = await response.arrayBuffer();
  const bits = fact("Bits");
  return {
    values: bits === 16 ? words(bytes) : new Uint8Array(bytes),
    rows: fact("Rows"),
    columns: fact("Columns"),
    channels: fact("Channels"),
    bits,
    low: fact("Low"),
    high: fact("High"),
    inverted: fact("Inverted") === 1,
    slope: fact("Slope"),
    intercept: fact("Intercept"),
  };
}

/** Where the network found evidence for a label, as a picture to lie over the image. */
export async function heat(id, label) {
  const filters = new URLSearchParams({ layer: "heat", label });
  const path = `/v1/predictions/${encodeURIComponent(id)}/heatmap?${filters}`;
  return createImageBitmap(await (await request("GET", path)).blob());
}

/** Little-endian 16 bits, on any machine. */
function words(bytes) {
  const view = new DataView(bytes);
  return Uint16Array.from({ length: bytes.byteLength >> 1 }, (_, at) =>
    view.getUint16(2 * at, true),
  );
}

function ofFrame(frame) {
  return frame ? `?frame=${frame}` : "";
}

/** Again while other pictures are before this one. */
async function patiently(ask, { signal, waiting }) {
  for (let left = TRIES; ; left -= 1) {
    try {
      return await ask();
    } catch (error) {
      if (!left || !["busy", "key-in-use"].includes(error.code)) throw error;
      waiting();
      await pause(signal);
    }
  }
}

function pause(signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, PAUSE_MS);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function json(...words) {
  return (await request(...words)).json();
}

async function request(method, path, body = null, headers = {}, signal = undefined) {
  let response;
  try {
    response = await fetch(path, { method, body, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused({ code: "away", detail: "" });
  }
  if (response.ok) return response;
  throw new Refused(await response.json().catch(() => ({ status: response.status })));
}
