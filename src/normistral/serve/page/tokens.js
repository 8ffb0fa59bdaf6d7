// The third tab: how the base's tokenizer and the model's split a text, side by side.

import { attempt, post } from "/page/api.js";
import { figure, onLanguage, say } from "/page/texts.js";

const byId = (id) => document.getElementById(id);
const PAUSE = 350; // milliseconds without a key before the text is split
const TONES = 4;
let last = null;
let waiting = 0;
let asked = 0;

async function split() {
  const text = byId("cut").value;
  const mine = ++asked;
  last = text ? await post("/v1/tokenize", { input: text }) : null;
  if (mine === asked) show();
}

function show() {
  byId("cuts").replaceChildren(...(last ? last.data.map(panel) : []));
  byId("tokens-status").textContent = verdict();
}

function verdict() {
  const count = Object.fromEntries((last?.data ?? []).map((one) => [one.role, one.count]));
  if (!count.base || !count.model) return "";
  const share = Math.round(100 * (count.model / count.base - 1));
  if (share === 0) return say("same");
  return share < 0 ? say("fewer", figure(-share)) : say("more", figure(share));
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function panel(cut) {
  const outer = element("article", "cut");
  outer.append(element("h2", "", say(`role_${cut.role}`)));
  const count = element("p", "figure", `${figure(cut.count)} `);
  count.append(element("small", "", say("count", cut.count)));
  const facts = [];
  if (cut.tokens_per_word) facts.push(say("per_word", figure(cut.tokens_per_word, 2)));
  if (cut.bytes_per_token) facts.push(say("per_token", figure(cut.bytes_per_token, 1)));
  facts.push(say("vocabulary", figure(cut.vocabulary)));
  const text = element("p", "text");
  cut.parts.forEach((part, index) => {
    const span = element("span", "part");
    span.dataset.tone = index % TONES;
    span.title = part.ids.join(", ");
    span.append(...shown(part.text));
    if (part.ids.length > 1) {
      const number = element("sup", "", String(part.ids.length));
      number.setAttribute("aria-label", say("shared", figure(part.ids.length)));
      span.append(number);
    }
    text.append(span);
  });
  outer.append(count, element("p", "quiet", facts.join(" · ")), text);
  return outer;
}

/** Spaces and new lines made visible. */
function shown(text) {
  return text.split(/( |\n|\t)/).filter((piece) => piece !== "").flatMap((piece) => {
    if (piece === " ") return [element("span", "gap", "·")];
    if (piece === "\n") return [element("span", "gap", "↵"), document.createTextNode("\n")];
    return [piece === "\t" ? element("span", "gap", "⇥") : document.createTextNode(piece)];
  });
}

/** Make the tab work. */
export function startTokens() {
  byId("cut").value = say("example_tokens");
  onLanguage(show);
  byId("cut").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => attempt(split), PAUSE);
  });
  byId("tokens-form").addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    attempt(split);
  });
  byId("tab-tokens").addEventListener("shown", () => { if (!last) attempt(split); });
}
