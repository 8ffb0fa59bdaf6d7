// Requests to the server that this page came from: whole answers and streams, the token, failures in words.

import { say } from "/page/texts.js";

const TOKEN = "normistral.token";
const POSSIBLE = /^[\x20-\x7e]+$/; // what a header can carry, and the server takes as a token
const byId = (id) => document.getElementById(id);
let token = remembered();

function remembered() {
  try { return sessionStorage.getItem(TOKEN); } catch { return null; }
}

function remember() {
  try { sessionStorage.setItem(TOKEN, token); } catch { /* a page without storage asks again next time */ }
}

function headers() {
  const own = { "Content-Type": "application/json" };
  if (token) own.Authorization = `Bearer ${token}`;
  return own;
}

/** A failure that the page can show. */
export class Failure extends Error {}

function askForToken(reason) {
  byId("token-form").hidden = false;
  byId("token").focus();
  return new Failure(say(reason));
}

async function answerOf(path, options) {
  if (token && !POSSIBLE.test(token)) throw askForToken("impossible_token");
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(say("unreachable"));
  }
  if (answer.ok) return answer;
  if (answer.status === 401) throw askForToken(token ? "wrong_token" : "token_label");
  let message = answer.statusText;
  try { message = (await answer.json()).error.message; } catch { /* no JSON: the status must do */ }
  throw new Failure(message);
}

/** GET a JSON answer. */
export const get = async (path) => (await answerOf(path, {})).json();

/** POST a JSON body and await the whole answer. */
export const post = async (path, body, signal) =>
  (await answerOf(path, { method: "POST", body: JSON.stringify(body), signal })).json();

/** POST a body and yield the events of the answer as they come. */
export async function* stream(path, body, signal) {
  const answer = await answerOf(path, { method: "POST", body: JSON.stringify(body), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new Failure(parsed.error.message);
      yield parsed;
    }
  }
}

/** Show what went wrong above the tabs, or nothing. */
export function showFailure(error) {
  const place = byId("failure");
  place.textContent = error ? error.message : "";
  place.hidden = !error;
}

/** Run an action of a form; failures are shown. */
export async function attempt(action) {
  showFailure(null);
  try {
    await action();
  } catch (error) {
    if (error.name !== "AbortError") showFailure(error);
  }
}

/** Listen for a token, and call back when there is one. */
export function startToken(onToken) {
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value.trim();
    remember();
    byId("token-form").hidden = true;
    byId("token").value = "";
    onToken();
  });
}
