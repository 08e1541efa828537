"""The tokenizer: the paper's form, the same file from the same texts, hostile texts."""

import json

import pytest
import torch

from model.tokenizer import EOT, SOT, Tokenizer

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
    for text in ["日本語", "\x00\x7f", "🚲🚲 x", "a" * 3, "ÀÉ"]:
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


def test_the_vocabulary_stays_within_its_size() -> None:
    many = [f"{chr(97 + index % 26)}{chr(97 + index % 7)}{chr(97 + index % 11)} word" for index in range(2000)]
    assert Tokenizer.train(many, 540, 12).vocab_size == 540
    assert Tokenizer.train(["q"], 5000, 12).vocab_size == 514


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
