"use strict";

// All that the page knows. The server keeps nothing: every request carries what it depends on.
const state = { text: "", masked_words: null, seed: 0, mask_ratio: 0.25, chosen: {} };
let picture = null;
let selected = null; // position of the token that is being edited
let requests = 0;

const MOVED = 0.05; // a belief that changes by less is not spoken of
const element = (id) => document.getElementById(id);
const percent = (probability) => (100 * probability).toFixed(1) + " %";

async function post(path, question) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(question),
    });
  } catch {
    throw new Error("the inspector does not answer; is it still running in the terminal?");
  }
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

// Ask for the picture of the state with these changes; where that fails, everything stays as it is.
async function look(changes, describe) {
  const number = ++requests;
  const question = { ...state, ...changes };
  document.body.setAttribute("aria-busy", "true");
  try {
    const answer = await (await post("look", question)).json();
    if (number !== requests) return; // a later question is on its way
    const before = question.text === state.text ? picture : null;
    picture = answer.picture;
    Object.assign(state, {
      text: question.text,
      seed: question.seed,
      mask_ratio: question.mask_ratio,
      masked_words: picture.masked_words,
      chosen: picture.chosen,
    });
    if (!before) closeEditor();
    show(answer.html);
    element("error").textContent = "";
    element("status").textContent = (describe ? describe() : "") + markMoved(before);
  } catch (error) {
    if (number === requests) element("error").textContent = error.message;
  } finally {
    if (number === requests) document.body.removeAttribute("aria-busy");
  }
}

function show(html) {
  const focus = keyOf(document.activeElement);
  for (const [id, content] of Object.entries(html)) element(id).innerHTML = content; // escaped by the server
  for (const container of lists()) rove(container, 0);
  const again = focus && document.querySelector(focus);
  if (again) {
    rove(again.closest("[data-roving]"), buttonsOf(again.closest("[data-roving]")).indexOf(again));
    again.focus({ preventScroll: true });
  }
  markSelected();
}

// A selector that finds an element again after its surroundings were written anew.
function keyOf(active) {
  if (!active || !active.closest("[data-roving]")) return null;
  const { word, position, head, token } = active.dataset;
  if (word !== undefined) return `.word[data-word="${word}"]`;
  if (token !== undefined) return `.pick[data-position="${position}"][data-head="${head}"][data-token="${token}"]`;
  return `.token[data-position="${position}"]`;
}

// Lists of buttons are one stop of the Tab key each; arrow keys move inside.
function lists() {
  return ["words", "candidates", "beliefs"].map(element);
}

function buttonsOf(container) {
  return [...container.querySelectorAll("button")];
}

function rove(container, index) {
  container.dataset.roving = "";
  buttonsOf(container).forEach((button, place) => (button.tabIndex = place === index ? 0 : -1));
}

document.addEventListener("keydown", (event) => {
  const container = event.target.closest && event.target.closest("[data-roving]");
  if (!container || event.target.tagName !== "BUTTON") return;
  const buttons = buttonsOf(container);
  const place = buttons.indexOf(event.target);
  const to = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (to === undefined || !buttons[to]) return;
  event.preventDefault();
  rove(container, to);
  buttons[to].focus();
});

// Text and spans

element("reader").addEventListener("submit", (event) => {
  event.preventDefault();
  look({ text: element("text").value, masked_words: [], chosen: {} }, () => "Read. ");
});

element("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("reader").requestSubmit();
});

element("words").addEventListener("click", (event) => {
  const button = event.target.closest(".word");
  if (!button) return;
  const word = Number(button.dataset.word);
  const masked = new Set(state.masked_words);
  if (!masked.delete(word)) masked.add(word);
  const inWord = (position) => position >= Number(button.dataset.first) && position <= Number(button.dataset.last);
  look({ masked_words: [...masked], chosen: without(inWord) });
});

element("random").addEventListener("click", () => {
  const mask_ratio = Number(element("mask-ratio").value);
  look({ masked_words: null, mask_ratio, seed: newSeed(), chosen: {} });
});

element("clear").addEventListener("click", () => look({ masked_words: [], chosen: without(isMasked) }));

const newSeed = () => Math.floor(Math.random() * 2 ** 31);
const isMasked = (position) => picture.tokens[position].masked;

// The tokens chosen by hand, without those at the positions that a condition names.
function without(condition) {
  return Object.fromEntries(Object.entries(state.chosen).filter(([position]) => !condition(Number(position))));
}

// Fills

element("candidates").addEventListener("click", (event) => {
  const button = event.target.closest(".pick");
  if (!button) return;
  const { position, token } = button.dataset;
  look({ chosen: { ...state.chosen, [position]: Number(token) } }, () => spoken(position));
});

element("sample").addEventListener("click", () => look({ seed: newSeed(), chosen: without(isMasked) }));

element("likeliest").addEventListener("click", () => {
  const best = picture.fills.map((fill) => [fill.position, (fill.mlm[0] || fill.sbgo[0]).token_id]);
  look({ chosen: { ...state.chosen, ...Object.fromEntries(best) } });
});

// Editing a token by hand

element("beliefs").addEventListener("click", (event) => {
  const button = event.target.closest(".token");
  if (!button || button.getAttribute("aria-disabled")) return;
  selected = Number(button.dataset.position);
  markSelected();
  element("edited").textContent = `${shown(picture.tokens[selected].original)} (token ${selected})`;
  element("typed").value = picture.tokens[selected].text.trim();
  element("editor").hidden = false;
  element("typed").focus();
  element("typed").select();
});

element("editor").addEventListener("submit", (event) => {
  event.preventDefault();
  const position = selected;
  look({ typed: { position, text: element("typed").value } }, () => spoken(position));
});

element("undo").addEventListener("click", () => {
  const position = selected;
  look({ chosen: without((other) => other === position) }, () => spoken(position));
});

element("close").addEventListener("click", closeEditor);

element("editor").addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeEditor();
});

function closeEditor() {
  const token = document.querySelector(`.token[data-position="${selected}"]`);
  const hadFocus = element("editor").contains(document.activeElement);
  selected = null;
  element("editor").hidden = true;
  markSelected();
  if (token && hadFocus) token.focus();
}

function markSelected() {
  for (const token of element("beliefs").querySelectorAll(".token")) {
    token.classList.toggle("selected", Number(token.dataset.position) === selected);
  }
}

const shown = (text) => `“${text.trim() || "␣"}”`;
const spoken = (position) => `Token ${position} is now ${shown(picture.tokens[position].text)}. `;

// Mark the tokens whose beliefs have moved since the picture before, and say how many there are.
function markMoved(before) {
  if (!before) return "";
  const sentences = [];
  let others = 0;
  for (const token of picture.tokens) {
    const was = before.tokens[token.position];
    const moves = ["ato", "sbpo"]
      .filter((head) => token[head] !== null && was[head] !== null)
      .map((head) => [head.toUpperCase(), was[head], token[head]])
      .filter(([, from, to]) => Math.abs(to - from) >= MOVED);
    if (!moves.length) continue;
    const line = moves.map(([head, from, to]) => `${head} ${percent(from)} → ${percent(to)}`).join(", ");
    if (token.token_id !== was.token_id) sentences.push(`${shown(token.text)}: ${line}.`);
    else others += 1;
    const button = element("beliefs").querySelector(`.token[data-position="${token.position}"]`);
    button.classList.add("moved");
    const [, from, to] = moves[0];
    button.querySelector(".now").dataset.arrow = to > from ? "▲" : "▼";
    button.querySelector(".tip").append(Object.assign(document.createElement("span"), { textContent: line }));
  }
  if (others) sentences.push(`${others} other token${others > 1 ? "s" : ""} moved by 5 points or more (▲ ▼).`);
  return sentences.slice(-4).join(" ");
}

// Downloads

async function withError(action) {
  try {
    await action();
    element("error").textContent = "";
  } catch (error) {
    element("error").textContent = error.message;
  }
}

async function savedPicture() {
  return (await post("download", state)).text();
}

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

element("download-html").addEventListener("click", () =>
  withError(async () => save(new Blob([await savedPicture()], { type: "text/html" }), "spanelectra.html")),
);

element("download-png").addEventListener("click", () =>
  withError(async () => {
    const width = 1152;
    // the style is taken out as text: parsed here, it would count as one of this page, which allows none
    const [before, style, after] = (await savedPicture()).split(/<style>|<\/style>/);
    const saved = new DOMParser().parseFromString(before + after, "text/html");
    const content = saved.querySelector(".picture");
    content.querySelectorAll("details").forEach((part) => part.remove());
    const measured = Object.assign(document.createElement("div"), { className: "measured" });
    measured.append(content.cloneNode(true));
    document.body.append(measured);
    const height = Math.ceil(measured.scrollHeight);
    measured.remove();
    const markup = new XMLSerializer().serializeToString(content);
    const svg =
      `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
      `<style><![CDATA[${style}]]></style>` +
      `<foreignObject width="100%" height="100%">${markup}</foreignObject></svg>`;
    const image = new Image();
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svg);
    await image.decode().catch(() => {
      throw new Error("this browser cannot make a PNG of it; download the HTML instead.");
    });
    const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
    const drawing = canvas.getContext("2d");
    drawing.fillStyle = "#fff";
    drawing.fillRect(0, 0, canvas.width, canvas.height);
    drawing.drawImage(image, 0, 0, canvas.width, canvas.height);
    save(await new Promise((resolve) => canvas.toBlob(resolve, "image/png")), "spanelectra.png");
  }),
);

// The first picture: spans at random, or none where the text is too short for them.
(async () => {
  const text = element("text").value;
  await look({ text });
  if (!picture && text.trim()) await look({ text, masked_words: [] });
})();
