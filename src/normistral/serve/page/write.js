// The first tab: continue a text or translate it, shown as it comes, stopped when asked.

import { attempt, showFailure, stream } from "/page/api.js";
import { LANGUAGES, figure, onLanguage, promptName, say } from "/page/texts.js";

const byId = (id) => document.getElementById(id);
const prompts = { continue: null, translate: null }; // what stands in the field of either task
let task = "continue";
let mostTokens = Infinity; // of the server
let running = null;

/** The longest continuation, within what the server allows. */
function length() {
  const wanted = Math.trunc(Number(byId("length").value)) || 64;
  return Math.min(Math.max(1, wanted), mostTokens);
}

function request() {
  const text = byId("prompt").value;
  const translates = task === "translate";
  const prompt = translates
    ? `${promptName(byId("from").value)}: ${text.replace(/\s*\n\s*/g, " ").trim()}\n${promptName(byId("to").value)}:`
    : text;
  return {
    prompt,
    max_tokens: length(),
    temperature: Number(byId("temperature").value),
    stop: translates || byId("stop-line").checked ? ["\n"] : null,
    stream: true,
    stream_options: { include_usage: true },
  };
}

async function write() {
  if (!byId("prompt").value.trim()) {
    byId("write-status").textContent = say("empty");
    byId("prompt").focus();
    return;
  }
  const body = request();
  const place = byId("written-text");
  running = new AbortController();
  show(true);
  byId("written-prompt").textContent = task === "translate" ? "" : body.prompt;
  place.textContent = "";
  byId("written-box").hidden = false;
  byId("write-status").textContent = say("writing");
  const started = performance.now();
  let tokens = 0;
  let outcome = "";
  try {
    for await (const event of stream("/v1/completions", body, running.signal)) {
      if (event.usage) tokens = event.usage.completion_tokens;
      for (const choice of event.choices) {
        place.append(task === "translate" && !place.textContent ? choice.text.trimStart() : choice.text);
      }
    }
    const rate = tokens / ((performance.now() - started) / 1000);
    outcome = place.textContent ? say("done", figure(tokens), figure(rate)) : say("nothing");
  } catch (error) {
    outcome = error.name === "AbortError" ? say("stopped") : "";
    if (error.name !== "AbortError") showFailure(error);
  } finally {
    running = null;
    show(false);
    byId("write-status").textContent = outcome;
  }
}

function show(busy) {
  byId("go").disabled = busy;
  byId("stop").disabled = !busy;
  byId("written").setAttribute("aria-busy", String(busy));
  byId("go-on").hidden = busy || task === "translate" || !byId("written-text").textContent;
  if (!busy && document.activeElement === document.body) byId("go").focus();
}

function chooseTask(name) {
  running?.abort();
  prompts[task] = byId("prompt").value;
  task = name;
  byId("prompt").value = prompts[task] ?? say(`example_${task === "continue" ? "write" : "translate"}`);
  byId("translation").hidden = task !== "translate";
  byId("stop-line-label").hidden = task === "translate";
  byId("written-box").hidden = true;
  byId("written-text").textContent = "";
  byId("write-status").textContent = "";
  label();
  show(false);
}

function label() {
  byId("prompt-label").textContent = say(task === "translate" ? "prompt_translate" : "prompt");
  for (const id of ["from", "to"]) {
    for (const option of byId(id).options) option.textContent = say(option.value);
  }
}

/** Make the tab work. */
export function startWriting() {
  for (const [id, chosen] of [["from", "eng"], ["to", "nob"]]) {
    for (const code of LANGUAGES) byId(id).add(new Option(code, code, code === chosen, code === chosen));
  }
  byId("prompt").value = say("example_write");
  onLanguage(label);
  byId("write-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) attempt(write);
  });
  byId("stop").addEventListener("click", () => running?.abort());
  byId("write").addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("write-form").requestSubmit();
  });
  byId("go-on").addEventListener("click", () => {
    byId("prompt").value = byId("written-prompt").textContent + byId("written-text").textContent;
    byId("write-form").requestSubmit();
  });
  byId("swap").addEventListener("click", () => {
    [byId("from").value, byId("to").value] = [byId("to").value, byId("from").value];
  });
  byId("temperature").addEventListener("input", (event) => {
    byId("temperature-shown").textContent = figure(Number(event.target.value), 1);
  });
  for (const radio of document.querySelectorAll("input[name=task]")) {
    radio.addEventListener("change", () => chooseTask(radio.value));
  }
}

/** Tell the tab the server's limits. */
export function limitWriting(maxTokens) {
  mostTokens = maxTokens;
  byId("length").max = maxTokens;
  byId("length").value = length();
}
