"""The orderings of MVDream's and MV-RAG's tables, on the built-in prior or others: commands, and one page of results.

    python examples/tables.py --out tables/ --plan
    python examples/tables.py --out tables/
    python examples/tables.py --out tables/ --reference data/ --with-2d A/prior --without-2d B/prior --adapter C/prior

Three questions, each asked if its parts are there:

- Janus: do assets have fewer second fronts when the prior sees all views at once (mini) than one at a time?
- MVDream's Table 1: does a prior that was trained on single images too (2D + 3D) draw better than one of views alone?
- MV-RAG's Table 1: does a prior draw new things better by pictures than by text, by one picture, or by DreamBooth?

It calls `dream3d batch`, `evaluate`, `dreambooth` and `views`. Stopped, it goes on where it was. `--plan` prints the
commands, and about how long they take on two cores. The page is tables.md. See docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dream3d.cli.evaluate_pictures import PICTURES, search_in, shared_out
from dream3d.evaluation.suite.cases import packaged_prompts
from dream3d.evaluation.suite.summary import FIGURES
from dream3d.files import write_atomically
from dream3d.names import slug
from dream3d.report.tables import table

ASSET_SECONDS = 120
"""Of one asset of the preset mini on two cores: the README's one and a half to two and a half minutes."""
VIEWS_SECONDS = 5
"""Of the four views of one prompt (README); as long again for alpha, where a prior draws by pictures."""
DREAMBOOTH_SECONDS = 540
"""Of a prior that learns one thing: docs/dreambooth.md's eight to ten minutes, on a busy machine."""
TOKEN = "sks"
FEWER = 3
"""Times that the share of Janus assets should be smaller."""


@dataclass(frozen=True)
class Step:
    """A command, the file that is there when it was carried out, and about how many seconds it takes."""

    words: Sequence[str]
    seconds: int = 0
    done: Path | None = None


@dataclass(frozen=True)
class Ordering:
    """A figure of two columns, the first of which should be the better one."""

    figure: str
    better: str
    worse: str
    times: float = 1.0
    """How many times better, for a figure of which less is better."""


def janus_steps(out: Path, prompts: Path, count: int) -> list[Step]:
    """Assets of the same prompts by both presets, measured; "dream3d batch" makes only what is missing."""
    steps = [
        Step(["batch", str(prompts), "--out-dir", str(out / name), "--set", f"preset={preset}"], count * ASSET_SECONDS)
        for name, preset in (("mini", "mini"), ("single-view", "mini-single-view"))
    ]
    columns = [str(out / name) for name in ("mini", "single-view")]
    return [*steps, Step(["evaluate", *columns, "--out-dir", str(out / "janus")])]


def table_1_steps(out: Path, reference: Path, priors: Sequence[Path], count: int) -> list[Step]:
    """Both priors on the captions of held-out objects."""
    words = ["--protocol", "mvdream", "--reference", str(reference), "--limit", str(count)]
    evaluate = ["evaluate", *map(str, priors), *words, "--out-dir", str(out / "table-1")]
    return [Step(evaluate, len(priors) * count * VIEWS_SECONDS)]


def mv_rag_steps(out: Path, adapter: Path, concepts: Sequence[str], learnt: Sequence[str]) -> list[Step]:
    """The ways of drawing new things, and priors that each learnt one of them (``learnt``), from the same pictures."""
    steps, sheets = [], out / "dreambooth"
    for concept in learnt:
        name = bare_name(concept)
        prior = out / "priors" / slug(concept, 60)
        photos = ["dreambooth", str(out / "pictures" / slug(concept, 60)), "--token", TOKEN, "--class", name]
        learn = [*photos, "--prior", str(adapter), "--method", "lora", "--out", str(prior)]
        steps.append(Step(learn, DREAMBOOTH_SECONDS, prior / "adapter_model.safetensors"))
        sheet = sheets / f"{slug(concept, 60)}.png"
        drawn = ["views", f"a {TOKEN} {name}", "--prior", str(prior), "--out", str(sheet)]
        steps.append(Step(drawn, VIEWS_SECONDS, sheet))
    columns = [str(adapter), *([str(sheets)] if learnt else [])]
    words = ["--protocol", "ood", "--prompts", str(out / "concepts.txt"), "--draw-by", "pictures,text,one-picture"]
    seconds = 4 * len(concepts) * VIEWS_SECONDS
    return [*steps, Step(["evaluate", *columns, *words, "--out-dir", str(out / "mv-rag")], seconds)]


def bare_name(concept: str) -> str:
    """The thing without its article."""
    article, _, rest = concept.partition(" ")
    return rest if article in ("a", "an", "the") and rest else concept


def write_pictures(out: Path, count: int, learnt: int) -> tuple[list[str], list[str]]:
    """Write the first new things of which the built-in corpus has pictures to draw and to judge by.

    Pictures that DreamBooth is to learn from are written too: those that the others draw by. Returns the things, and
    those that are to be learnt.
    """
    search, concepts = search_in(None, 2 * PICTURES), list[str]()
    for concept in packaged_prompts("ood"):
        if len(concepts) == count:
            break
        drawn, judged = shared_out(search(concept), draws=True)
        if drawn and judged:
            concepts.append(concept)
            if len(concepts) <= learnt:
                folder = out / "pictures" / slug(concept, 60)
                folder.mkdir(parents=True, exist_ok=True)
                for number, one in enumerate(drawn):
                    write_atomically(folder / f"{number}{one.suffix}", _writer(one.image))
    (out / "concepts.txt").write_text("".join(f"{one}\n" for one in concepts), encoding="utf-8")
    return concepts, concepts[:learnt]


def _writer(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def verdict(ordering: Ordering, subjects: Mapping[str, Any]) -> str:
    """One sentence: whether the ordering holds, with both figures and their intervals."""
    figure = FIGURES[ordering.figure]
    pair = [
        subjects.get(name, {}).get("figures", {}).get(ordering.figure) for name in (ordering.better, ordering.worse)
    ]
    title = f"{figure.title}, {ordering.better} against {ordering.worse}"
    if None in pair:
        return f"{title}: not measured."
    first, second = pair
    if figure.better == "less":
        holds = first["value"] * ordering.times <= second["value"] and first["value"] < second["value"]
        apart = first["high"] < second["low"]
    else:
        holds, apart = first["value"] > second["value"], first["low"] > second["high"]
    shown = " against ".join(f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in pair)
    how_much = f" {ordering.times:g} times" if ordering.times != 1 else ""
    said = f"holds{how_much}" if holds else f"does not hold{how_much}"
    return f"{title}: {shown}. It {said}; the intervals {'are apart' if apart else 'overlap'}."


def page(title: str, record: Mapping[str, Any], orderings: Sequence[Ordering]) -> str:
    """A part of the page in Markdown: all figures of all columns, and the orderings."""
    subjects = record["subjects"]
    known = [key for key in FIGURES if any(key in one["figures"] for one in subjects.values())]
    rows = [["prompts", *(str(one["prompts"]) for one in subjects.values())]]
    for key in known:
        found = [one["figures"].get(key) for one in subjects.values()]
        cells = ["" if one is None else f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in found]
        rows.append([FIGURES[key].title, *cells])
    said = "\n".join(f"- {verdict(one, subjects)}" for one in orderings)
    return f"## {title}\n\n{table(['figure', *subjects], rows)}\n\n{said}\n"


def carried_out(steps: Sequence[Step]) -> None:
    """Run the commands that are not done yet; the first that fails ends it."""
    for step in steps:
        if step.done is None or not step.done.exists():
            subprocess.run(["dream3d", *step.words], check=True)


def orderings_of(folder: str, names: Sequence[str]) -> list[Ordering]:
    """What the papers' tables say of the columns of a part, which are called after folders and priors."""
    if folder == "janus":
        first, second = names[:2]
        return [Ordering("janus_share", first, second, FEWER), Ordering("consistency", first, second)]
    if folder == "table-1":
        first, second = names[:2]
        return [Ordering(figure, first, second) for figure in ("fid", "inception_score", "text_image")]
    best, *others = names
    return [Ordering("image_image", best, other) for other in others]


def parts_of(args: argparse.Namespace) -> dict[tuple[str, str], list[Step]]:
    """The steps of the parts that are asked for, by title and folder."""
    lines = [line for line in args.prompts.read_text("utf-8").splitlines() if line.strip() and line[0] != "#"]
    prompts = args.out / "prompts.txt"
    prompts.write_text("".join(f"{line}\n" for line in lines[: args.assets]), encoding="utf-8")
    parts = {("Janus", "janus"): janus_steps(args.out, prompts, min(args.assets, len(lines)))}
    if args.reference and args.with_2d and args.without_2d:
        priors = [args.with_2d, args.without_2d]
        title = "2D and 3D data against 3D data alone"
        parts[title, "table-1"] = table_1_steps(args.out, args.reference, priors, args.captions)
    if args.adapter:
        concepts, learnt = write_pictures(args.out, args.concepts, args.learnt)
        parts["New things", "mv-rag"] = mv_rag_steps(args.out, args.adapter, concepts, learnt)
    return parts


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plan", action="store_true", help="print the commands, and about how long they take")
    parser.add_argument("--prompts", type=Path, default=Path("prompts/gallery.txt"), help="of the assets")
    parser.add_argument("--assets", type=int, default=10, help="prompts of the assets")
    parser.add_argument("--reference", type=Path, help="shards with held-out objects")
    parser.add_argument("--with-2d", type=Path, help="a prior that was trained on single images too")
    parser.add_argument("--without-2d", type=Path, help="the same without them")
    parser.add_argument("--captions", type=int, default=50, help="held-out objects at most")
    parser.add_argument("--adapter", type=Path, help="a prior with an image adapter")
    parser.add_argument("--concepts", type=int, default=20, help="new things at most")
    parser.add_argument("--learnt", type=int, default=0, help="how many of them DreamBooth learns")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = parts_of(args)
    if args.plan:
        every = [step for steps in parts.values() for step in steps]
        for step in every:
            print(shlex.join(["dream3d", *step.words]), f"# {step.seconds / 60:.0f} min")
        print(f"about {sum(step.seconds for step in every) / 60:.0f} minutes on two cores")
        return
    written = []
    for (title, folder), steps in parts.items():
        carried_out(steps)
        record = json.loads((args.out / folder / "evaluation.json").read_text("utf-8"))
        written.append(page(title, record, orderings_of(folder, list(record["subjects"]))))
    (args.out / "tables.md").write_text("\n".join(written), encoding="utf-8")
    print(args.out / "tables.md")


if __name__ == "__main__":
    main()
