"""The page of a run at work: it asks its own server for figures and pictures, and ends as the run's report."""

from __future__ import annotations

from html import escape

from dream3d.report.page import html_page

_STYLE = """
main { max-width: 900px; margin: 0 auto; padding: 1.6rem 1.2rem 3rem }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.05rem; margin: 1.6rem 0 .5rem } p { margin: .3rem 0 } .faint { color: var(--faint) }
progress { width: 100%; accent-color: var(--accent) }
img { display: block; width: 100%; border-radius: 8px; image-rendering: pixelated }
img:not([src]), h2:has(+ img:not([src])), h2:has(+ div:empty) { display: none }
svg { display: block; width: 100%; background: var(--card); border: 1px solid var(--line); border-radius: 8px }
svg path.grid { stroke: var(--line); fill: none } svg .tick { fill: var(--faint); font-size: 15px }
svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke: var(--accent) }
"""

_SCRIPT = """
const at = (id) => document.getElementById(id);
const shown = { field: 0, targets: 0 };
let misses = 0;
for (const id of ["field", "targets"]) at(id).addEventListener("load", () => { at(id).dataset.shown = shown[id]; });
async function look() {
  let state;
  try {
    state = await (await fetch("state.json", { cache: "no-store" })).json();
    misses = 0;
  } catch {
    misses += 1;
    at("stage").textContent = "The run does not answer.";
    if (misses < 5) setTimeout(look, 2000);
    return;
  }
  at("stage").textContent = state.stage;
  at("bar").max = state.steps;
  at("bar").value = state.step;
  at("figures").textContent = state.figures.join(" \\u00b7 ");
  at("messages").replaceChildren(...state.messages.map((text) => {
    const line = document.createElement("p");
    line.textContent = text;
    return line;
  }));
  at("loss").innerHTML = state.loss;  // an SVG that the server drew
  for (const id of ["field", "targets"]) {
    if (state.pictures[id] !== shown[id]) {
      shown[id] = state.pictures[id];
      at(id).src = `${id}.png?${shown[id]}`;
    }
  }
  if (state.report) location.replace("report.html");
  else if (!state.ended) setTimeout(look, 1000);
}
look();
"""


def live_page(title: str) -> str:
    """The whole page; its title is the run's prompt."""
    body = f"""<main>
<h1>{escape(title)}</h1>
<p id="stage" class="faint">starting</p>
<progress id="bar" value="0" max="1"></progress>
<p id="figures" class="faint"></p>
<h2>The field</h2>
<img id="field" alt="the field from four sides">
<h2>What the prior drew, which the field is fitted to</h2>
<img id="targets" alt="targets">
<h2>Loss</h2>
<div id="loss"></div>
<div id="messages"></div>
</main>"""
    return html_page(title, _STYLE, body, classic=_SCRIPT, served=True)
