// A host for medimg-edge bundles: answers the golden tensors of one and compares (../bundle.md).
//     npm install && node infer.mjs BUNDLE [--artifact model.onnx]
// Exit 0: every answer is within the limit; 1: one is not, or the bundle must not answer.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as ort from "onnxruntime-web";

const LIMITS = { float32: 1e-4, int8: 0.05 }; // the largest |dp|, by precision
const WARNING = 0.02; // int8 kernels of another processor may round otherwise
const refuse = (why) => (console.error(why), process.exit(1));

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { artifact: { type: "string" } },
});
const folder = positionals[0] ?? refuse("usage: node infer.mjs BUNDLE [--artifact FILE]");
const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
if (manifest.schema !== 1) refuse(`The manifest has schema ${manifest.schema}; 1 is read.`);
if (!manifest.golden.length) refuse("The bundle has no golden cases: nothing can be checked.");
const artifact = values.artifact ?? manifest.default_artifact;
const { format, precision } = manifest.artifacts[artifact] ?? refuse(`No artifact ${artifact}.`);
if (format !== "onnx") refuse(`${artifact} is ${format}; onnx is run.`);

function read(name) {
  const data = readFileSync(join(folder, name));
  const { sha256 } = manifest.artifacts[name] ?? manifest.files[name] ?? {};
  const same = createHash("sha256").update(data).digest("hex") === sha256;
  return same ? new Uint8Array(data) : refuse(`${name} is not the file that the manifest lists.`);
}

function decide(p, { threshold, refer }) {
  if (refer && refer[0] <= p && p < refer[1]) return "refer";
  return p >= threshold ? "positive" : "negative";
}

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(read(artifact));
const labels = manifest.task === "binary" ? manifest.labels.slice(1) : manifest.labels;
for (const { input, pixels, probability } of manifest.golden) {
  const tensor = new ort.Tensor("uint8", read(pixels), [1, ...manifest.input.shape]);
  const outputs = await session.run({ [manifest.input.name]: tensor }, ["probability"]);
  const found = [...outputs.probability.data];
  const dp = Math.max(...labels.map((_, i) => Math.abs(found[i] - probability[artifact][i])));
  const passed = dp <= LIMITS[precision]; // false also for NaN
  if (!passed) process.exitCode = 1;
  const best = labels[found.indexOf(Math.max(...found))];
  const answers = labels.map((label, i) => {
    const point = manifest.decision[artifact][label];
    const decision = manifest.task === "multiclass" ? best : decide(found[i], point);
    return `${label} ${found[i].toFixed(4)} ${decision}`;
  });
  const status = !passed ? "failed" : dp > WARNING ? "warning" : "ok";
  console.log(`${input}: ${answers.join(", ")}; |dp| ${dp.toExponential(1)} ${status}`);
}
