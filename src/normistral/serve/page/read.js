// The second tab: words hidden in a text, filled in by the model, with the alternatives behind each.

import { attempt, post } from "/page/api.js";
import { figure, say } from "/page/texts.js";

const byId = (id) => document.getElementById(id);
const MASK = "<mask>";
const CANDIDATES = 6;

function hide() {
  const field = byId("masked");
  let { selectionStart: start, selectionEnd: end } = field;
  while (start < end && /\s/.test(field.value[start])) start++;
  while (end > start && /\s/.test(field.value[end - 1])) end--;
  if (start === end) {
    byId("read-status").textContent = say("mark_first");
    field.focus();
    return;
  }
  // The mask takes the space before it.
  while (start > 0 && field.value[start - 1] === " ") start--;
  field.setRangeText(MASK, start, end, "end");
  byId("read-status").textContent = "";
  field.focus();
}

async function fill() {
  const text = byId("masked").value;
  if (!text.includes(MASK)) {
    byId("read-status").textContent = say("no_mask_yet");
    byId("masked").focus();
    return;
  }
  byId("fill").disabled = true;
  byId("read-status").textContent = say("reading");
  try {
    const pieces = byId("pieces").value;
    const answer = await post("/v1/fill-mask", {
      input: text, top_k: CANDIDATES, tokens_per_mask: pieces ? Number(pieces) : null,
    });
    show(text, answer.data[0].masks);
    byId("read-status").textContent = say("filled", answer.data[0].masks.length);
  } catch (error) {
    byId("read-status").textContent = "";
    throw error;
  } finally {
    byId("fill").disabled = false;
  }
}

function show(text, masks) {
  const place = byId("filled");
  place.replaceChildren();
  const parts = text.split(/ *<mask>/);
  parts.forEach((part, index) => {
    // The original card's spelling: a letter right behind a mask begins a new word.
    place.append(index > 0 && /^\p{L}/u.test(part) ? ` ${part}` : part);
    if (index < masks.length) place.append(filled(masks[index], index, index === 0 && part === ""));
  });
  byId("filled-box").hidden = false;
}

function filled(candidates, index, first) {
  const outer = document.createElement("span");
  outer.className = "filled";
  const word = document.createElement("button");
  word.type = "button";
  const panel = document.createElement("div");
  panel.className = "choices";
  panel.id = `choices-${index}`;
  panel.hidden = true;
  panel.setAttribute("role", "group");
  word.setAttribute("aria-controls", panel.id);
  word.setAttribute("aria-expanded", "false");
  const list = document.createElement("ul");
  panel.append(list);
  const space = document.createTextNode("");
  const choose = (candidate) => {
    space.data = !first && candidate.text.startsWith(" ") ? " " : "";
    word.textContent = candidate.text.trim() || "␣";
    panel.setAttribute("aria-label", say("alternatives", word.textContent));
    for (const button of list.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.candidate === candidate));
    }
  };
  for (const candidate of candidates) list.append(choiceOf(candidate, () => { choose(candidate); word.focus(); open(false); }));
  choose(candidates[0]);
  const open = (isOpen) => {
    panel.hidden = !isOpen;
    word.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) return;
    panel.style.left = "0";
    const over = panel.getBoundingClientRect().right + 12 - document.documentElement.clientWidth;
    if (over > 0) panel.style.left = `${-over}px`;
  };
  outer.addEventListener("mouseenter", () => open(true));
  outer.addEventListener("mouseleave", () => { if (!outer.contains(document.activeElement)) open(false); });
  word.addEventListener("focus", () => open(true));
  word.addEventListener("click", () => open(true));
  outer.addEventListener("focusout", (event) => { if (!outer.contains(event.relatedTarget)) open(false); });
  outer.addEventListener("keydown", (event) => move(event, word, list, open));
  const inner = document.createElement("span");
  inner.append(space, outer);
  outer.append(word, panel);
  return inner;
}

function choiceOf(candidate, onChoice) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.tabIndex = -1;
  button.candidate = candidate;
  const text = document.createElement("b");
  text.textContent = candidate.text.trim() || "␣";
  const share = document.createElement("small");
  share.textContent = `${figure(100 * candidate.probability, 1)} %`;
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = candidate.probability;
  bar.setAttribute("aria-hidden", "true");
  button.append(text, share, bar);
  button.addEventListener("click", onChoice);
  item.append(button);
  return item;
}

function move(event, word, list, open) {
  const buttons = [...list.querySelectorAll("button")];
  const at = buttons.indexOf(document.activeElement);
  if (event.key === "Escape") {
    word.focus();
    open(false);
  } else if (event.key === "Enter" && at >= 0) {
    event.preventDefault(); // or the same key would press the word, which has the focus next
    buttons[at].click();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    open(true);
    const next = at + (event.key === "ArrowDown" ? 1 : -1);
    (next < 0 ? word : buttons[Math.min(next, buttons.length - 1)]).focus();
  }
}

/** Make the tab work. */
export function startReading() {
  byId("masked").value = say("example_read");
  byId("hide").addEventListener("click", hide);
  byId("read-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(fill);
  });
}

/** Tell the tab whether the model has a mask. */
export function limitReading(canFill) {
  byId("no-masks").hidden = canFill;
  byId("fill").disabled = !canFill;
}
