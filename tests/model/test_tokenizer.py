"""The tokenizer: the paper's form, the same file from the same texts, hostile texts."""

import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.tokenizer import EOT, SOT, Tokenizer, clean

TEXTS = ["a red bicycle icon on a white background", "Blue car, 2021!", "naïve café ☕️", "don't I'LL we've"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 600, 12)


def test_a_row_is_sot_tokens_eot_zeros(tokenizer: Tokenizer) -> None:
    rows = tokenizer(["a red bicycle", ""])
    assert rows.dtype == torch.int64
    assert rows[0].tolist()[0] == tokenizer.sot_id
    assert rows[0].tolist()[4] == tokenizer.eot_id
    assert rows[1].tolist() == [tokenizer.sot_id, tokenizer.eot_id, 0, 0, 0]
    assert tokenizer.tokens("A RED bicycle") == [SOT, "a</w>", "red</w>", "bicycle</w>", EOT]


def test_ids_stand_in_the_papers_order(tokenizer: Tokenizer) -> None:
    vocab = json.loads(tokenizer.to_bytes())["model"]["vocab"]
    names = sorted(vocab, key=vocab.__getitem__)
    assert names[0] == "!"
    assert names[256] == "!</w>"
    assert all(name == names[index] + "</w>" for index, name in enumerate(names[256:512]))
    assert (tokenizer.sot_id, tokenizer.eot_id) == (len(names), len(names) + 1)
    assert tokenizer.vocab_size == len(names) + 2


def test_words_are_split_as_in_the_paper(tokenizer: Tokenizer) -> None:
    words = "".join(tokenizer.tokens("don't 2021, naïve!?")[1:-1]).split("</w>")
    decoded = [bytes(_byte(symbol) for symbol in word).decode() for word in words[:-1]]
    assert decoded == ["don", "'t", "2", "0", "2", "1", ",", "naïve", "!?"]


def _byte(symbol: str) -> int:
    # OpenAI's table: printable bytes stand for themselves, the others count up from 256.
    others = [byte for byte in range(256) if not (33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255)]
    return ord(symbol) if ord(symbol) < 256 else others[ord(symbol) - 256]


def test_every_text_comes_back_byte_for_byte(tokenizer: Tokenizer) -> None:
    for text in ["日本語", "\u200b\ufffe", "🚲🚲 x", "a" * 3, "ÀÉ"]:
        symbols = "".join(tokenizer.tokens(text)[1:-1]).replace("</w>", "")
        assert bytes(_byte(symbol) for symbol in symbols).decode() == text.lower().replace(" ", "")


def test_a_long_text_is_cut_and_keeps_its_eot(tokenizer: Tokenizer) -> None:
    rows = tokenizer(["a " * 100])
    assert rows.shape == (1, 12)
    assert rows[0, -1] == tokenizer.eot_id == rows.max()


def test_a_text_that_spells_a_mark_is_only_text(tokenizer: Tokenizer) -> None:
    for again in (tokenizer, Tokenizer.from_bytes(tokenizer.to_bytes())):
        rows = again([f"{EOT} a"])[0].tolist()
        assert rows.count(tokenizer.eot_id) == 1
        assert rows[-1] == tokenizer.eot_id


def test_the_same_texts_give_the_same_file(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert Tokenizer.train(iter(TEXTS), 600, 12).to_bytes() == tokenizer.to_bytes()
    again = Tokenizer.from_bytes(tokenizer.to_bytes())
    assert again.to_bytes() == tokenizer.to_bytes()
    assert torch.equal(again(TEXTS), tokenizer(TEXTS))


def test_pairs_that_are_equally_frequent_are_learnt_in_one_order() -> None:
    draw = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyzäöüß")
    texts = [" ".join("".join(draw.choice(letters, 6)) for _ in range(5)) for _ in range(300)]
    assert len({Tokenizer.train(texts, 900, 12).to_bytes() for _ in range(6)}) == 1


def test_the_vocabulary_stays_within_its_size() -> None:
    many = [f"{chr(97 + index % 26)}{chr(97 + index % 7)}{chr(97 + index % 11)} word" for index in range(2000)]
    assert Tokenizer.train(many, 540, 12).vocab_size == 540
    assert Tokenizer.train(["q"], 5000, 12).vocab_size == 514


def test_a_text_is_repaired_before_it_is_split(tokenizer: Tokenizer) -> None:
    assert torch.equal(tokenizer(["a &amp;amp; red"]), tokenizer(["A & Red"]))
    assert torch.equal(tokenizer([" na\u00c3\u00afve \x00\r\n cafe\u0301"]), tokenizer(["naïve café"]))


def test_what_is_not_repaired_needs_no_repair() -> None:
    import html

    import ftfy

    for code in range(1, 128):
        text = f"x{chr(code)}y {chr(code)}"
        assert clean(text).split() == html.unescape(html.unescape(ftfy.fix_text(text))).split()


def test_a_batch_is_its_texts_one_by_one(tokenizer: Tokenizer) -> None:
    draw = np.random.default_rng(0)
    pieces = ["red", "Blue", "Σ", "'s", "&lt;", " ", " ", "\n", "1", "é", "!!", "", "\x00", EOT, "x" * 70]
    texts = ["".join(draw.choice(pieces, draw.integers(0, 30))) for _ in range(200)]
    rows = tokenizer.encode(texts)
    assert rows.shape == (200, 12)
    for text, row in zip(texts, rows, strict=True):
        np.testing.assert_array_equal(tokenizer.encode([text])[0], row)
        length = int(row.argmax()) + 1
        assert (row[0], row[length - 1]) == (tokenizer.sot_id, tokenizer.eot_id)
        assert (row == tokenizer.eot_id).sum() == 1
        assert not row[length:].any()
    assert tokenizer.encode([]).shape == (0, 12)


def test_threads_share_what_is_remembered(tokenizer: Tokenizer) -> None:
    fresh = Tokenizer.from_bytes(tokenizer.to_bytes())
    texts = [f"a{index % 97}b red{index % 31}" for index in range(500)]
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(fresh.encode(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(rows, tokenizer.encode(texts)) for rows in found)
    assert len(found) == 4


def test_a_long_text_is_an_error_where_it_may_not_be_cut(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(["a " * 10], truncate=False)[0, -1] == tokenizer.eot_id
    with pytest.raises(ValueError, match="expected at most 12 tokens, found 13 in text 1: 'a a"):
        tokenizer.encode(["a", "a " * 11], truncate=False)


def test_ids_become_a_text_again(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(["A  Red bicycle, naïve ☕️"])[0]) == "a red bicycle , naïve ☕️"


def test_exported_files_hold_the_same_vocabulary(tokenizer: Tokenizer) -> None:
    exported = tokenizer.export()
    vocab = json.loads(exported["vocab.json"])
    assert list(vocab.values()) == list(range(tokenizer.vocab_size))
    assert list(vocab)[-2:] == [SOT, EOT]
    merges = exported["merges.txt"].decode().splitlines()[1:]
    assert [merge.replace(" ", "") for merge in merges] == list(vocab)[512:-2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "tokenizer.json: expected a file of the tokenizers"),
        (b"{}", "KeyError"),
        (b'{"model":{"type":"Unigram"}}', "found 'Unigram'"),
    ],
)
def test_a_wrong_file_is_told(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_bytes(content)


def test_another_file_is_not_openais_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"expected OpenAI's bpe_simple_vocab_16e6\.txt\.gz .* found 5 bytes with sha256"):
        Tokenizer.from_openai(b"wrong")


GOLDEN = {  # made by OpenAI's own tokenizer
    "a diagram": [320, 22697],
    "a dog": [320, 1929],
    "a cat": [320, 2368],
    "a photo of a cat.": [320, 1125, 539, 320, 2368, 269],
    "Hello, World!": [3306, 267, 1002, 256],
    "it's 2021 &amp; 100%": [585, 568, 273, 271, 273, 272, 261, 272, 271, 271, 260],
    "naïve café ☕️": [1097, 35689, 563, 15304, 15499],
    "日本語": [39121, 44353, 34002, 508],
    "don't I'LL we've": [847, 713, 328, 1342, 649, 1200],
    "mojibake: âœ” No problem": [617, 3252, 11878, 281, 13749, 871, 4324],
    "": [],
    "１２３": [272, 273, 274],
    "don’t": [847, 713],
    "x" * 20: [32035, 32035, 32035, 32035, 22819],
}


@pytest.fixture(scope="module")
def peer() -> Any:
    """open_clip's tokenizer module alone: the package would bring torchvision."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", Path(str(package.origin)).with_name("tokenizer.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def openai(peer: Any) -> Tokenizer:
    return Tokenizer.from_openai(Path(peer.default_bpe()).read_bytes())


@pytest.mark.peers
def test_openais_vocabulary_gives_openais_ids(openai: Tokenizer, peer: Any) -> None:
    assert (openai.vocab_size, openai.sot_id, openai.eot_id, openai.context_length) == (49408, 49406, 49407, 77)
    rows = openai.encode(list(GOLDEN))
    assert rows.shape == (len(GOLDEN), 77)
    for row, ids in zip(rows, GOLDEN.values(), strict=True):
        assert row[: len(ids) + 2].tolist() == [49406, *ids, 49407]
        assert not row[len(ids) + 2 :].any()
    again = Tokenizer.from_bytes(openai.to_bytes())
    assert np.array_equal(again.encode(list(GOLDEN)), rows)
    import gzip

    unpacked = gzip.decompress(Path(peer.default_bpe()).read_bytes())
    assert Tokenizer.from_openai(unpacked).to_bytes() == openai.to_bytes()


NASTY = [
    "&amp;",
    "&lt;b&gt;",
    "&#39;s",
    "&eacute;",
    "e&#769;",
    "<p>",
    "&nbsp;",
    "â€™",
    "Ã©",
    "ﬁ",
    "＆amp；",
    "'LL",
    "'Re",
    "don't",
    "İstanbul",
    "ΣΑΣ",
    "straße",
    "👩‍👩‍👧",
    "☕️",
    "１２３",
    "٣٤",
    "Ⅷ",
    "½",
    "\u200b",
    "\u00ad",
    "\r\n",
    "\x85",
    "\u2028",
    "\x1c",
    "\x1b[31m",
    "\ufeff",
    "日本語",
    "हिन्दी",
    "x" * 200,
    EOT,
    "&#x1F600;",
    "&#0;",
    "&#12;",
    "\x0c",
    "\x0b",
    "ǅ",
    "K",
    "'ſ",
    "\u0345",
    "\ufffd",
    "100%",
    "$9.99",
    "@you",
    "http://a.b/c?d=e&f=g",
    "__init__",
    "&notit;",
    "&ampamp;",
    "U.S.",
    "3.5mm",
    "rock'n'roll",
    "O’Neill",
    "“quoted”",
    "#1",
]


@pytest.mark.peers
@pytest.mark.parametrize("seed", range(4))
def test_ids_are_those_of_open_clip_for_hostile_texts(seed: int, openai: Tokenizer, peer: Any) -> None:
    draw = np.random.default_rng(seed)
    points = np.array([point for point in range(1, 0x30000) if not 0xD800 <= point < 0xE000])
    mixed = ["".join(draw.choice([*NASTY, " ", " ", "a", "Dog"], draw.integers(1, 20))) for _ in range(25_000)]
    unicode = ["".join(map(chr, draw.choice(points, draw.integers(1, 20)))) for _ in range(600)]
    latin = ["".join(map(chr, draw.integers(1, 256, draw.integers(1, 40)))) for _ in range(600)]
    texts = [*mixed, *unicode, *latin]
    assert np.array_equal(openai.encode(texts), peer.SimpleTokenizer()(texts).numpy())


@pytest.mark.peers
def test_transformers_opens_the_exported_files(tmp_path: Path, openai: Tokenizer) -> None:
    from transformers import CLIPTokenizer  # pyright: ignore[reportMissingImports]

    for name, content in openai.export().items():
        (tmp_path / name).write_bytes(content)
    theirs = CLIPTokenizer.from_pretrained(str(tmp_path))
    texts = ["a photo of a cat.", "Hello, World!", "naïve café", "don't I'LL we've"]
    for text, row in zip(texts, openai.encode(texts), strict=True):
        assert theirs(text)["input_ids"] == row[: int(row.argmax()) + 1].tolist()
