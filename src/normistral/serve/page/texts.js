// What the page says, in Bokmål and in English, and the choice between them.

const TEXTS = {
  nb: {
    skip: "Gå til innholdet", language: "Språk", tabs: "Hva modellen kan",
    token_label: "Denne tjeneren ber om et adgangstegn", token_button: "Bruk",
    write: "Skriv", read: "Les", tokens: "Tokener",
    write_lead: "Modellen skriver videre på teksten din, bit for bit.",
    task: "Oppgave", continue: "Fortsett", translate: "Oversett", from: "Fra", to: "Til", swap: "Bytt språk",
    prompt: "Begynnelsen av teksten", prompt_translate: "Teksten som skal oversettes",
    settings: "Innstillinger", length: "Høyst så mange tokener", temperature: "Variasjon:",
    temperature_note: "0 tar alltid det mest sannsynlige", stop_line: "Stopp ved linjeskift",
    go: "Skriv", stop: "Stopp", go_on: "Fortsett herfra", result: "Resultat",
    read_lead: "Skjul ord, så sier modellen hva den venter der. Den leser teksten i begge retninger.",
    no_masks: "Denne modellen har ikke <mask> i ordforrådet sitt og kan ikke fylle inn.",
    masked: "Tekst med <mask>", masked_note: "Merk et ord og skjul det, eller skriv <mask> selv.",
    pieces: "Bak hver maske", one_piece: "ett token", any_pieces: "så mange som trengs",
    fill: "Fyll inn", hide: "Skjul merket ord",
    filled_note: "Pek på et utfylt ord, eller gå til det med Tab, for å se hva annet som kunne stå der. Pil ned velger.",
    tokens_lead: "Slik deles en tekst i tokener: jo færre, jo billigere er den å lese og skrive.",
    text: "Tekst", split: "Del opp",
    footer: "En språkmodell kan ta feil, og gjentar det tekstene dens sa. Ingenting du skriver, forlater denne tjeneren.",
    writing: "Skriver …", reading: "Leser …", stopped: "Stoppet.", nothing: "Modellen avsluttet uten å skrive noe.",
    done: (n, rate) => `Ferdig: ${n} tokener${rate ? `, ${rate} per sekund` : ""}.`,
    filled: (n) => n === 1 ? "Én maske fylt inn." : `${n} masker fylt inn.`,
    mark_first: "Merk et ord i teksten først.", empty: "Skriv noe først.", no_mask_yet: "Skjul minst ett ord først.",
    alternatives: (text) => `Alternativer til «${text}»`,
    role_base: "Basismodellen", role_model: "Denne modellen",
    vocabulary: (n) => `ordforråd på ${n} tokener`, count: (n) => n === 1 ? "token" : "tokener",
    per_word: (n) => `${n} per ord`, per_token: (n) => `${n} byte per token`,
    fewer: (p) => `Denne modellen trenger ${p} % færre tokener enn basismodellen.`,
    more: (p) => `Denne modellen trenger ${p} % flere tokener enn basismodellen.`,
    same: "Begge trenger like mange tokener.", shared: (n) => `${n} tokener`,
    unreachable: "Tjeneren svarer ikke.", wrong_token: "Adgangstegnet ble ikke godtatt.",
    impossible_token: "Et adgangstegn har bare bokstavene a til z, sifre og vanlige skilletegn: skriv det inn på nytt.",
    eng: "Engelsk", nob: "Bokmål", nno: "Nynorsk", sme: "Nordsamisk", dan: "Dansk", swe: "Svensk", isl: "Islandsk",
    fao: "Færøysk", fin: "Finsk",
    example_write: "En søt lundefugl flyr over", example_translate: "I like coffee.",
    example_read: "En søt lundefugl flyr over de<mask> norske fjorder.",
    example_tokens: "Ei jente gjekk på skule i Ålesund. Beaivi lea čáppat Sámis.",
  },
  en: {
    skip: "Skip to the content", language: "Language", tabs: "What the model can do",
    token_label: "This server asks for a token", token_button: "Use it",
    write: "Write", read: "Read", tokens: "Tokens",
    write_lead: "The model goes on with your text, piece by piece.",
    task: "Task", continue: "Continue", translate: "Translate", from: "From", to: "To", swap: "Swap languages",
    prompt: "Beginning of the text", prompt_translate: "Text to translate",
    settings: "Settings", length: "Longest, in tokens", temperature: "Variation:",
    temperature_note: "0 always takes the likeliest", stop_line: "Stop at a new line",
    go: "Write", stop: "Stop", go_on: "Go on from here", result: "Result",
    read_lead: "Hide words, and the model tells what it expects there. It reads the text both ways.",
    no_masks: "This model has no <mask> in its vocabulary and cannot fill any.",
    masked: "Text with <mask>", masked_note: "Mark a word and hide it, or write <mask> yourself.",
    pieces: "Behind each mask", one_piece: "one token", any_pieces: "as many as it takes",
    fill: "Fill in", hide: "Hide marked word",
    filled_note: "Point at a filled word, or move to it with Tab, to see what else could stand there. Arrow Down chooses.",
    tokens_lead: "How a text is cut into tokens: the fewer, the cheaper it is to read and write.",
    text: "Text", split: "Split",
    footer: "A language model can be wrong, and repeats what its texts said. Nothing you write leaves this server.",
    writing: "Writing …", reading: "Reading …", stopped: "Stopped.", nothing: "The model ended without writing anything.",
    done: (n, rate) => `Done: ${n} ${n === 1 ? "token" : "tokens"}${rate ? `, ${rate} a second` : ""}.`,
    filled: (n) => n === 1 ? "One mask filled." : `${n} masks filled.`,
    mark_first: "Mark a word of the text first.", empty: "Write something first.", no_mask_yet: "Hide at least one word first.",
    alternatives: (text) => `Alternatives to “${text}”`,
    role_base: "The base model", role_model: "This model",
    vocabulary: (n) => `vocabulary of ${n} tokens`, count: (n) => n === 1 ? "token" : "tokens",
    per_word: (n) => `${n} per word`, per_token: (n) => `${n} bytes per token`,
    fewer: (p) => `This model needs ${p} % fewer tokens than the base model.`,
    more: (p) => `This model needs ${p} % more tokens than the base model.`,
    same: "Both need as many tokens.", shared: (n) => `${n} tokens`,
    unreachable: "The server does not answer.", wrong_token: "The token was not accepted.",
    impossible_token: "A token has only the letters a to z, digits and common signs: enter it again.",
    eng: "English", nob: "Bokmål", nno: "Nynorsk", sme: "Northern Sámi", dan: "Danish", swe: "Swedish", isl: "Icelandic",
    fao: "Faroese", fin: "Finnish",
    example_write: "En søt lundefugl flyr over", example_translate: "I like coffee.",
    example_read: "En søt lundefugl flyr over de<mask> norske fjorder.",
    example_tokens: "Ei jente gjekk på skule i Ålesund. Beaivi lea čáppat Sámis.",
  },
};

export const LANGUAGES = ["eng", "nob", "nno", "sme", "dan", "swe", "isl", "fao", "fin"];
const REMEMBERED = "normistral.language";
const listeners = [];
let current = "en";

/** A text in the chosen language; some take figures. */
export function say(key, ...values) {
  const text = TEXTS[current][key];
  return typeof text === "function" ? text(...values) : text;
}

/** A language's name inside a prompt: the model learnt them in Bokmål. */
export const promptName = (code) => TEXTS.nb[code];

/** A number as the chosen language writes it. */
export const figure = (value, digits = 0) =>
  value.toLocaleString(current, { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** Call again whenever the language changes. */
export function onLanguage(listener) {
  listeners.push(listener);
  listener();
}

function apply() {
  document.documentElement.lang = current;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  for (const name of Object.keys(TEXTS)) {
    document.getElementById(`language-${name}`).setAttribute("aria-pressed", String(name === current));
  }
  for (const listener of listeners) listener();
}

function remembered() {
  try { return localStorage.getItem(REMEMBERED); } catch { return null; }
}

/** Take the remembered language, else the browser's, and listen to the two buttons. */
export function startLanguages() {
  const known = remembered();
  current = known in TEXTS ? known : /^(nb|nn|no)\b/.test(navigator.language) ? "nb" : "en";
  for (const name of Object.keys(TEXTS)) {
    document.getElementById(`language-${name}`).addEventListener("click", () => {
      current = name;
      try { localStorage.setItem(REMEMBERED, name); } catch { /* a private window forgets */ }
      apply();
    });
  }
  apply();
}
