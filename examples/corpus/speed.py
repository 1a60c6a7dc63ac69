"""How fast a corpus takes captions and finds pictures: python examples/corpus/speed.py [--rows 100000] [--workers 2].

Rows are made up: captions of 3 to 9 words of the text encoder's vocabulary, drawn as words are in texts (1 / rank), and
small pictures that differ. Terms, BM25 index and caption vectors are made as for real ones; vectors of pictures only
with --picture-vectors.
"""

from __future__ import annotations

import argparse
import io
import os
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dream3d.retrieval.ingest import AddOptions, add
from dream3d.retrieval.lance import create_store, open_store
from dream3d.retrieval.opening import ENCODER, corpus_encoder
from dream3d.retrieval.search import Corpus
from dream3d.weights.loading import find_folder


def made_up(path: Path, rows: int, seed: int = 0) -> list[str]:
    """Write a webdataset tar of ``rows`` samples; its captions."""
    rng = np.random.default_rng(seed)
    lines = (find_folder(ENCODER) / "tokenizer/vocab.txt").read_text("utf-8").splitlines()
    words = [line for line in lines if line.isalpha() and line.isascii() and len(line) > 2]
    share = 1 / np.arange(1, len(words) + 1)
    picks = rng.choice(len(words), (rows, 9), p=share / share.sum())
    lengths = rng.integers(3, 10, rows)
    captions = [" ".join(words[i] for i in picks[row, : lengths[row]]) for row in range(rows)]
    with tarfile.open(path, "w") as tar:
        for row, caption in enumerate(captions):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(file, "PNG", compress_level=1)
            for ending, content in (("png", file.getvalue()), ("txt", caption.encode())):
                info = tarfile.TarInfo(f"{row:07d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return captions


def cpu_seconds() -> float:
    """Of this process and its children that have ended: what is left of a figure on a busy machine."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--searches", type=int, default=50)
    parser.add_argument("--picture-vectors", action="store_true")
    arguments = parser.parse_args()
    encoder, folder = corpus_encoder(), find_folder(ENCODER)
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        captions = made_up(here / "rows.tar", arguments.rows)
        place = str(here / "corpus")
        started, worked = time.monotonic(), cpu_seconds()
        store = create_store(place, encoder.fingerprint, (encoder.caption_width, encoder.picture_width))
        options = AddOptions(arguments.workers, arguments.picture_vectors)
        summary = add([here / "rows.tar"], store, encoder, folder, options)
        written = time.monotonic()
        store.finish()
        seconds, index = time.monotonic() - started, time.monotonic() - written
        worked = cpu_seconds() - worked
        print(f"added {summary.added} in {seconds:.1f} s, of which index {index:.1f} s; {worked:.1f} s of CPU time")
        started = time.monotonic()
        corpus = Corpus(open_store(place, encoder.fingerprint), encoder, place)
        corpus.search("a red fox")
        print(f"opened and searched once in {time.monotonic() - started:.2f} s")
        prompts = [captions[i] for i in np.random.default_rng(1).choice(arguments.rows, arguments.searches)]
        times, work = [], []
        for prompt in prompts:
            begun, worked = time.monotonic(), cpu_seconds()
            corpus.search(prompt)
            times.append(time.monotonic() - begun)
            work.append(cpu_seconds() - worked)
        median, most, work_ms = (1e3 * value for value in (np.median(times), np.quantile(times, 0.9), np.median(work)))
        print(f"search: median {median:.0f} ms, 90 % {most:.0f} ms; {work_ms:.0f} ms of CPU time")


if __name__ == "__main__":
    main()
