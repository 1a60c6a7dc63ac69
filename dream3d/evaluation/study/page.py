"""The page of a study: one file, blind, driven by keys, which needs no network and keeps its answers to itself."""

from __future__ import annotations

import json
from html import escape

from dream3d.evaluation.study.answers import FORMAT
from dream3d.evaluation.study.questions import Study
from dream3d.report.page import data_uri, html_page

_STYLE = """
main { max-width: 1100px; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.3rem; min-height: 2.6em; margin: .3rem 0; overflow-wrap: anywhere }
.bar { height: 6px; background: var(--line); border-radius: 3px } .bar div { height: 100%; border-radius: 3px;
  background: var(--accent) }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }
.pair button { padding: 0; border: 3px solid var(--line); border-radius: 10px; overflow: hidden; background: none;
  cursor: pointer; color: inherit; font: inherit }
.pair button:hover, .pair button:focus-visible { border-color: var(--accent) }
.pair img { display: block; width: 100% } kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 .4em }
.row { display: flex; gap: .8rem; flex-wrap: wrap; align-items: center; margin: 1rem 0 }
.row button, .row a { padding: .5rem 1rem; border: 1px solid var(--line); border-radius: 8px; background: var(--card);
  color: inherit; font: inherit; cursor: pointer; text-decoration: none }
[hidden] { display: none !important } p { color: var(--faint) }
"""

_SCRIPT = """
const study = JSON.parse(document.querySelector("main").dataset.study);
const pictures = document.querySelectorAll("#pictures img");
const part = (name) => document.getElementById(name);
const memory = "dream3d-study-" + study.study;
function random(below) {
  return crypto.getRandomValues(new Uint32Array(1))[0] % below;
}
function fresh() {
  const order = study.questions.map((_, index) => index);
  for (let last = order.length - 1; last > 0; last--) {
    const other = random(last + 1);
    [order[last], order[other]] = [order[other], order[last]];
  }
  const person = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0"));
  return { person: person.join(""), order, choices: [] };
}
function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(memory));
    if (found && found.order.length === study.questions.length) return found;
  } catch {}
  return fresh();
}
let state = remembered();
function keep() {
  try {
    localStorage.setItem(memory, JSON.stringify(state));
  } catch {}
}
function collected() {
  const answers = state.choices.map((choice, place) => ({ question: study.questions[state.order[place]][0], choice }));
  return { format: study.format, study: study.study, person: state.person, answers };
}
function show() {
  const done = state.choices.length, all = study.questions.length, ended = done === all;
  part("done").style.width = (100 * done) / all + "%";
  part("count").textContent = done + " of " + all;
  part("ask").hidden = ended;
  part("end").hidden = !ended;
  part("undo").disabled = !done;
  part("save").hidden = !done;
  const [, prompt, left, right] = study.questions[state.order[Math.min(done, all - 1)]];
  part("prompt").textContent = ended ? "Thank you." : prompt;
  part("left").replaceChildren(pictures[left].cloneNode());
  part("right").replaceChildren(pictures[right].cloneNode());
  const old = part("save").href;
  const file = new Blob([JSON.stringify(collected(), null, 1)], { type: "application/json" });
  part("save").href = URL.createObjectURL(file);
  part("save").download = "answers-" + state.person + ".json";
  if (old) URL.revokeObjectURL(old);
}
function answer(choice) {
  if (state.choices.length === study.questions.length) return;
  state.choices.push(choice);
  keep();
  show();
}
function undo() {
  state.choices.pop();
  keep();
  show();
}
for (const choice of ["left", "same", "right"]) part(choice).addEventListener("click", () => answer(choice));
part("undo").addEventListener("click", undo);
part("again").addEventListener("click", () => {
  state = fresh();
  keep();
  show();
});
const keys = { ArrowLeft: "left", 1: "left", ArrowDown: "same", 0: "same", ArrowRight: "right", 2: "right" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (keys[event.key]) answer(keys[event.key]);
  else if (event.key === "Backspace") undo();
  else return;
  event.preventDefault();
});
show();
"""

DEFAULT_TEXT = "Which one is better: does it look like what the line says, from all sides, and well made?"


def study_page(study: Study, text: str = DEFAULT_TEXT) -> str:
    """The whole page; ``text`` is the question that stands over every pair, as plain text."""
    questions = [[one.name, one.prompt, one.left, one.right] for one in study.questions]
    data = json.dumps({"format": FORMAT, "study": study.digest, "questions": questions})
    pictures = "".join(f'<img alt="four views" src="{data_uri("image/png", one)}">' for one in study.pictures)
    body = (
        f'<main data-study="{escape(data)}"><div class="bar"><div id="done"></div></div>'
        f'<p><span id="count"></span> · {escape(text)}</p><h1 id="prompt"></h1>'
        '<div id="ask"><div class="pair"><button id="left" title="the left one"></button>'
        '<button id="right" title="the right one"></button></div>'
        '<div class="row"><span><kbd>←</kbd> the left one</span>'
        '<button id="same"><kbd>↓</kbd> about the same</button><span><kbd>→</kbd> the right one</span></div></div>'
        '<div id="end" hidden><p>Save the file with your answers and send it to the person who asked you. Nothing has '
        'been sent anywhere.</p><div class="row"><button id="again">begin again, as another person</button></div></div>'
        '<div class="row"><a id="save">save the answers</a><button id="undo"><kbd>Backspace</kbd> undo</button></div>'
        f'<div id="pictures" hidden>{pictures}</div></main>'
    )
    return html_page("Which one is better?", _STYLE, body, classic=_SCRIPT)
