// The page as a whole: the server's facts, the tabs, the language.

import { attempt, get, startToken } from "/page/api.js";
import { limitReading, startReading } from "/page/read.js";
import { startLanguages } from "/page/texts.js";
import { startTokens } from "/page/tokens.js";
import { limitWriting, startWriting } from "/page/write.js";

const byId = (id) => document.getElementById(id);
const tabs = [...document.querySelectorAll("[role=tab]")];

function select(tab, andFocus) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (andFocus) tab.focus();
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  tab.dispatchEvent(new Event("shown"));
}

function startTabs() {
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => select(tab, false));
    tab.addEventListener("keydown", (event) => {
      const next = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      select(tabs[(next + tabs.length) % tabs.length], true);
    });
  });
  const named = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
  if (named) select(named, false);
}

async function askServer() {
  const facts = await get("/v1/page");
  document.title = `${facts.model} – normistral`;
  byId("model").textContent = facts.model;
  byId("engine").textContent = `normistral ${facts.version} · ${facts.engine}`;
  limitWriting(facts.max_tokens);
  limitReading(facts.can_fill_masks);
}

startLanguages();
startWriting();
startReading();
startTokens();
startTabs();
startToken(() => attempt(askServer));
attempt(askServer);
