"""Tokenising a million captions with OpenAI's vocabulary: ours beside open_clip's SimpleTokenizer, which is OpenAI's code.

    python -m tests.benchmarks.tokenizer

Captions: each one of WordNet's lemmas put into one of a few frames, or a gloss cut to some words; one in twenty gets what web
texts have: curly quotes, an accent, an entity or broken UTF-8. Both make the same [n, 77] matrix from the same batches of
1,024, turn about, in one thread; times are of this process's CPU, and both start with nothing remembered. The matrices are
compared. Other lines: the captions without and with such characters apart. Ends with `tokenizer ratio=X.XX`.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from model.tokenizer import Tokenizer
from tests.benchmarks.match import WORDNET, read_wordnet

NUM_CAPTIONS = 1_000_000
BATCH = 1_024
FRAMES = ("a photo of a {}.", "{}", "The {} - free stock photo", "{} on a white background, 2019", "My {}'s new look!", "{} | {}")
WEB = ("“{}”", "{} café", "{} &amp; more", "{} â€“ photo", "{}’s", "{} 日本")
ONE_IN = 20  # captions with characters of the web


def load_peer() -> ModuleType:
    """open_clip's tokenizer module alone: the package would bring torchvision."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None, "open_clip_torch is missing: `make bench` installs it"
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", Path(str(package.origin)).with_name("tokenizer.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_captions(count: int) -> tuple[list[str], np.ndarray]:
    """The captions, and which of them have characters of the web."""
    lemmas, glosses = read_wordnet()
    names = sorted(lemmas)
    draw = np.random.default_rng(0)
    lemma, gloss = draw.integers(len(names), size=count), draw.integers(len(glosses), size=count)
    kind, words = draw.integers(2 * len(FRAMES), size=count), draw.integers(4, 20, size=count)
    is_web = draw.random(count) < 1 / ONE_IN
    captions = []
    for index in range(count):
        name = names[lemma[index]]
        if kind[index] < len(FRAMES):
            text = FRAMES[kind[index]].format(name, name)
        else:
            text = " ".join(glosses[gloss[index]].split()[: words[index]])
        captions.append(WEB[index % len(WEB)].format(text) if is_web[index] else text)
    return captions, is_web


def batches(captions: list[str]) -> Iterator[list[str]]:
    """The captions in their order."""
    return (captions[start : start + BATCH] for start in range(0, len(captions), BATCH))


def race(captions: list[str], ours: Callable[[list[str]], np.ndarray], peer: Callable[[list[str]], Any]) -> tuple[float, float]:
    """CPU seconds of each over all captions; every batch is compared."""
    seconds = [0.0, 0.0]
    for batch in batches(captions):
        start = time.process_time()
        own = ours(batch)
        middle = time.process_time()
        other = peer(batch)
        seconds[1] += time.process_time() - middle
        seconds[0] += middle - start
        assert np.array_equal(own, other.numpy())
    return seconds[0], seconds[1]


def main() -> None:
    """Print a line for each, then the ratio."""
    if not os.path.isdir(WORDNET):
        print(f"tokenizer: skipped: there is no {WORDNET} (Debian: apt-get install wordnet-base)")
        return
    os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
    torch.set_num_threads(1)
    captions, is_web = make_captions(NUM_CAPTIONS)
    module = load_peer()
    vocabulary = Path(str(module.__file__)).with_name("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    own, theirs = race(captions, Tokenizer.from_openai(vocabulary).encode, module.SimpleTokenizer())
    count = len(captions)
    print(f"ours            {count / own:>9,.0f} captions/s  {own:.1f} s of CPU")
    print(f"SimpleTokenizer {count / theirs:>9,.0f} captions/s  {theirs:.1f} s of CPU")
    print(f"same ids in {count:,} captions, {sum(map(len, captions)) / count:.0f} characters each")
    for name, wanted in (("without", ~is_web), ("with", is_web)):
        some = [captions[index] for index in np.flatnonzero(wanted)[:50_000]]
        part_own, part_theirs = race(some, Tokenizer.from_openai(vocabulary).encode, module.SimpleTokenizer())
        print(f"{len(some):,} {name} characters of the web: ratio {part_theirs / part_own:.2f}")
    print(f"tokenizer ratio={theirs / own:.2f}")


if __name__ == "__main__":
    main()
