"""The tokenizer of a prior folder: its file is checked, tried in a process of its own, and given bounded texts only.

The tokenizers library is compiled: on a file that nobody meant to be read it can panic, hang or abort the process.
"""

from __future__ import annotations

import functools
import html
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dream3d.errors import PriorError, UsageError
from dream3d.files import json_table
from dream3d.prior.layout import PACKAGED
from dream3d.prior.schema import check, one_of, read_bounded, whole

MAX_CHARACTERS = 4000
"""Of a text; encoders read a few hundred."""
TRIAL_SECONDS = 60.0
"""For a process to start on a busy machine and to encode a few texts."""
TRIAL_BYTES = 4 * 2**30
"""Of address space."""
_PROBES = (
    "",
    "a red chair",
    "x" * MAX_CHARACTERS,
    " .,[]<|endoftext|>'s 12" * 100,
    "Été 椅子 \u200d\U0001fa91\u0301" * 100,
)
_TRIAL = "import sys; sys.path[:] = sys.argv[3:]; from dream3d.prior.tokenizer import try_out; try_out(*sys.argv[1:3])"


def load_tokenizer(path: Path, tokens: int, words: int) -> Tokenizer:
    """The tokenizer, set to give exactly ``tokens`` ids below ``words``; which id fills up is the file's choice.

    Special tokens are never read from a text. :class:`PriorError` for a file that does not do as it should.
    """
    content = read_bounded(path)
    if content != (PACKAGED / "mini" / "tokenizer" / "tokenizer.json").read_bytes():
        _check_file(json_table(content, path, PriorError, "; copy the file again"), words, path)
        reason = _tried(content, tokens, words)
        if reason:
            raise PriorError(f"{path} is not a tokenizer ({reason}); copy the file again")
    return _made(content, tokens)


def _check_file(data: dict[str, Any], words: int, path: Path) -> None:
    model, padding, added = data.get("model"), data.get("padding") or {}, data.get("added_tokens") or []
    identity = whole(0, words - 1)
    if not (isinstance(model, dict) and isinstance(padding, dict) and isinstance(added, list)):
        raise PriorError(f"{path} is not a tokenizer (a part is no table); copy the file again")
    kind = check(model.get("type"), one_of("BPE", "WordPiece", "Unigram"), "model.type", path)
    vocabulary = model.get("vocab")
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    if kind == "Unigram":  # a list, whose places are the ids
        ids = list(range(len(vocabulary))) if isinstance(vocabulary, list) else []
    if not (ids and all(map(identity.accepts, ids))):
        raise PriorError(
            f"{path} is not a tokenizer of at most {words} words, which the text encoder reads; copy it again"
        )
    check(padding.get("pad_id", 0), identity, "padding.pad_id", path)
    check(model.get("max_input_chars_per_word", 100), whole(1, 1000), "model.max_input_chars_per_word", path)
    for token in added:
        check(token.get("id") if isinstance(token, dict) else None, identity, "added_tokens.id", path)


def _made(content: bytes, tokens: int) -> Tokenizer:
    tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    padding = tokenizer.padding or {}
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(
        length=tokens, pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]")
    )
    tokenizer.encode_special_tokens = True  # a prompt that spells the end token does not end there
    return tokenizer


@functools.lru_cache(maxsize=8)
def _tried(content: bytes, tokens: int, words: int) -> str:
    """What is wrong with a tokenizer, found out by another process; nothing if it is empty."""
    command = [sys.executable, "-c", _TRIAL, str(tokens), str(words), *sys.path]
    quiet = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    try:
        trial = subprocess.run(
            command, input=content, capture_output=True, timeout=TRIAL_SECONDS, env=quiet, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it was at it for {TRIAL_SECONDS:.0f} seconds"
    if trial.returncode == 0:
        return ""
    said = trial.stdout.decode("utf-8", "replace").partition("\n")[0][:200]
    return said or f"a process that tried it ended with {trial.returncode}"


def try_out(tokens: str, words: str) -> None:
    """What that process does: the file from standard input, a word about what is wrong to standard output."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (TRIAL_BYTES, TRIAL_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # the time limit alone holds
        pass
    reason = ""
    try:
        tokenizer = _made(sys.stdin.buffer.read(), int(tokens))
        for probe in _PROBES:
            found = tokenizer.encode(probe)
            if len(found.ids) != int(tokens) or max(found.ids) >= int(words) or not any(found.attention_mask):
                reason = f"it gives {sum(found.attention_mask)} of {len(found.ids)} tokens up to {max(found.ids)}"
    except BaseException as error:  # a panic of the library is no Exception
        reason = str(error) or type(error).__name__
    sys.stdout.write(reason)
    sys.exit(bool(reason))


def bounded(text: str) -> str:
    """The text; :class:`UsageError` for more than :data:`MAX_CHARACTERS` characters."""
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"a text of {len(text)} characters; text encoders are given at most {MAX_CHARACTERS}")
    return text


def repaired(text: str) -> str:
    """A text as the official tokenizer cleans it (open_clip's ``basic_clean``): mojibake, quotes, HTML entities."""
    import ftfy  # 0.1 s, which the built-in prior does not need

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()
