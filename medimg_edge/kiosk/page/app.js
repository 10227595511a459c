// The page of the station: what is shown when, and what follows on what.

import * as dialogs from "./dialogs.js";
import { renderDrift } from "./drift.js";
import { byId, make, say } from "./elements.js";
import { fromItem, Intake } from "./intake.js";
import { History, Inbox } from "./lists.js";
import * as result from "./result.js";
import { prediction as find, signOut } from "./service.js";
import * as sheet from "./sheet.js";
import * as texts from "./texts.js";
import { failure } from "./verdict.js";
import { Viewer } from "./viewer.js";
import { Watch } from "./watch.js";

const THEME = "medimg-edge.theme";
const ID = /^#([0-9a-f]{32})$/;
const REMEMBERED = 500;
const NOTICES = ["starting", "refused", "away"];

/** Known to this page alone, until it is closed: names and files by prediction. */
const names = new Map();
const attempts = new Map();
const answered = new Map();

/** What is open: {prediction, problem, attempt, name}, or null at home. */
let open = null;

/** Raised by whatever changes what is shown: what was asked for before that comes too late. */
let turn = 0;

await texts.load();
const viewer = new Viewer(() => printed());
const intake = new Intake(leave, came);
const history = new History((id) => go(id), names);
const inbox = new Inbox(readItem, answered);
const watch = new Watch(stationChanged);
wire();
translate();
watch.look();

/** A picture was read, or could not be. */
function came({ prediction, problem, attempt, name }) {
  if (problem?.code === "token") watch.look();
  if (!prediction) {
    show({ prediction: null, problem, attempt, name });
    return;
  }
  remember(names, prediction.id, name);
  remember(attempts, prediction.id, attempt);
  if (attempt.item && !problem) remember(answered, attempt.item, prediction.id);
  history.put(prediction);
  show({ prediction, problem, attempt, name });
  if (location.hash !== `#${prediction.id}`) location.hash = prediction.id;
}

/** Of the newest, so that a page that is open for months does not grow. */
function remember(map, key, value) {
  map.set(key, value);
  if (map.size > REMEMBERED) map.delete(map.keys().next().value);
}

function readItem(item) {
  const id = answered.get(item.id);
  if (id) go(id);
  else intake.read(fromItem(item));
}

function go(id) {
  location.hash = id;
}

/** Opens what the address says; nothing there is home. */
async function navigate() {
  const id = ID.exec(location.hash)?.[1];
  if (!id) {
    if (open) home();
    return;
  }
  if (open?.prediction?.id === id || watch.state === "sign-in" || intake.sending) return;
  const mine = (turn += 1);
  const found = await find(id).then(
    (prediction) => ({ prediction, attempt: attempts.get(id), name: names.get(id) }),
    (error) => ({ prediction: null, problem: failure(error.code, error.message) }),
  );
  if (mine === turn && ID.exec(location.hash)?.[1] === id) show(found);
}

function show(next) {
  turn += 1;
  open = next;
  document.body.dataset.view = "result";
  byId("home").hidden = true;
  byId("result").hidden = false;
  const words = renderResult();
  viewer.open(open.prediction, watch.facts?.has_heatmap ?? true);
  byId("answer-body").scrollTop = 0;
  byId("headline").focus();
  say(result.spoken(words, open));
}

function home() {
  turn += 1;
  open = null;
  viewer.close();
  sheet.render({ prediction: null }, null, viewer);
  document.body.dataset.view = "home";
  byId("result").hidden = true;
  byId("home").hidden = false;
  history.refresh();
  if (watch.told?.inbox) inbox.refresh();
  byId("choose").focus();
}

function renderResult() {
  const { attempt } = open;
  const again = attempt ? (frame) => intake.read(attempt, frame) : null;
  const words = result.render(open, watch.facts, again);
  sheet.render(open, watch.facts, viewer);
  return words;
}

/** Home, if it is not there already. */
function leave() {
  turn += 1;
  if (!open) return;
  if (location.hash) window.history.pushState(null, "", location.pathname);
  home();
}

function printed() {
  if (open) sheet.render(open, watch.facts, viewer);
}

function stationChanged({ state, told, facts }) {
  const { dataset } = document.body;
  const hash = facts?.hash ?? "";
  const hasChanged = dataset.state !== state || dataset.model !== hash;
  dataset.state = state;
  dataset.model = hash;
  renderDrift(state === "ready" ? told.drift : null);
  if (state === "sign-in") {
    dialogs.askToken(() => watch.look());
    renderStation();
    return;
  }
  if (hasChanged) {
    renderStation();
    say(texts.t(`state.${state}`));
    if (open) renderResult();
    else navigate();
  }
  if (state === "away") return;
  byId("inbox-part").hidden = !told?.inbox;
  byId("lists").dataset.inbox = String(Boolean(told?.inbox));
  if (told?.inbox && !open) inbox.refresh();
  const entries = told?.record?.entries;
  if (hasChanged || entries !== history.entries || history.isOfYesterday) {
    history.entries = entries;
    history.refresh();
  }
}

function renderStation() {
  const { state, told, facts } = watch;
  byId("state").textContent = texts.t(`state.${state}`);
  byId("model-name").textContent = facts ? facts.name : "medimg-edge";
  byId("model-version").textContent = facts ? facts.version : (told?.medimg_edge ?? "");
  byId("sign-out").hidden = !told?.token_required || state === "sign-in";
  const [use, lang] = facts ? texts.intendedUse(facts) : ["", ""];
  byId("use").replaceChildren(use ? make("span", { lang: lang || "en" }, use) : "");
  byId("use-name").hidden = !use;
  const notice = NOTICES.includes(state);
  byId("notice").hidden = !notice;
  byId("drop").hidden = notice;
  if (!notice) return;
  byId("notice-title").textContent = texts.t(`${state}.title`);
  byId("notice-do").textContent = texts.t(`${state}.do`);
  const words = state === "refused" ? told.message : "";
  byId("notice-words").hidden = !words;
  byId("notice-message").textContent = words ?? "";
  byId("notice-code").textContent = (words && told.code) ?? "";
}

/** Everything in the language as it is now. */
function translate() {
  document.documentElement.lang = texts.tag();
  document.title = texts.t("title");
  for (const each of document.querySelectorAll("[data-text]")) {
    each.textContent = texts.t(each.dataset.text);
  }
  for (const each of document.querySelectorAll("[data-label]")) {
    each.setAttribute("aria-label", texts.t(each.dataset.label));
    if (each.matches("button")) each.title = texts.t(each.dataset.label);
  }
  renderTheme();
  renderStation();
  renderDrift(watch.state === "ready" ? watch.told?.drift : null);
  intake.render();
  history.render();
  inbox.render();
  viewer.render();
  if (open) renderResult();
}

function renderTheme() {
  const theme = texts.kept(THEME) === "light" ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  const words = texts.t(theme === "light" ? "theme.dark" : "theme.light");
  byId("theme").setAttribute("aria-label", words);
  byId("theme").title = words;
}

function wire() {
  dialogs.wire();
  const choice = byId("language");
  choice.append(
    ...texts.languages().map(([code, name]) => make("option", { value: code, lang: code }, name)),
  );
  choice.value = texts.chosen();
  choice.addEventListener("change", () => {
    texts.choose(choice.value);
    translate();
  });
  byId("theme").addEventListener("click", () => {
    texts.keep(THEME, texts.kept(THEME) === "light" ? "dark" : "light");
    renderTheme();
  });
  byId("model").addEventListener("click", () => {
    dialogs.about(watch.facts, watch.told, watch.told?.medimg_edge ?? "");
  });
  byId("sign-out").addEventListener("click", async () => {
    await signOut().catch(() => null);
    location.replace(location.pathname);
  });
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId(open ? "headline" : "choose").focus();
  });
  byId("next").addEventListener("click", leave);
  byId("print").addEventListener("click", () => window.print());
  byId("confirm").addEventListener("click", () =>
    dialogs.askComment(open.prediction.id, confirmed),
  );
  window.addEventListener("hashchange", navigate);
  window.addEventListener("popstate", navigate);
  window.addEventListener("beforeprint", printed);
}

function confirmed(prediction) {
  history.put(prediction);
  if (open?.prediction?.id !== prediction.id) return;
  open = { ...open, prediction };
  renderResult();
  say(texts.t("confirm.said"));
}
