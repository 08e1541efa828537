"""The tokenizer: byte-level byte-pair encoding as CLIP's, trained on the dataset's own texts or with OpenAI's vocabulary.

in      texts
out     token ids [B, L]: SOT ... EOT and zeros; tokenizer.json of the `tokenizers` library
law     256 bytes, 256 bytes that end a word, merges, SOT, EOT: in this order, so EOT is the largest id; the same texts
        give the same file; a text that spells a mark is text; over-long texts are cut and keep their EOT
law     with OpenAI's vocabulary the ids are those of OpenAI's own tokenizer, except for texts that spell its marks
cost    a text of printable ASCII without "&" is split at spaces and looked up; only others go through ftfy, and only a word
        that was not met before through the merges. Ids of up to 262,144 words are kept: about 50 MB when full
source  CLIP section 2.4 (lower case, byte pairs); the cleaning, the word pattern and the order of ids are OpenAI's
"""

import gzip
import html
import json
from collections.abc import Iterable, Sequence

import ftfy
import numpy as np
import regex
import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from torch import Tensor

from model import files

SOT, EOT = "<|startoftext|>", "<|endoftext|>"
PAD_ID = 0
END_OF_WORD = "</w>"
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # a number is a digit at a time
SPLIT = regex.compile(WORD, regex.IGNORECASE)  # OpenAI's engine too: others know another Unicode and another "ignore case"
NUM_BYTES = 256
OPENAI_SIZE = 49_408  # entries; the paper's 49,152 counts the bytes once and the marks not at all
OPENAI_CONTEXT_LENGTH = 77
OPENAI_SHA256 = (  # of bpe_simple_vocab_16e6.txt.gz, and of what is in it
    "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
    "67603cfda2e032ad77b5f8808af37789d590db664b26df8705d2bf8b3c553fc8",
)
BETWEEN = "\x00"  # stands between two texts; ftfy leaves no such character in a text
MAX_WORDS = 262_144  # whose ids are kept
MAX_WORD_CHARS = 64  # of a word that is kept


def clean(text: str) -> str:
    """A text as OpenAI's tokenizer cleans it, but for runs of white space, which splitting removes."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return text  # nothing that ftfy or unescaping would change
    return html.unescape(html.unescape(ftfy.fix_text(text)))


def _byte_order() -> list[int]:
    """The bytes in OpenAI's order: those that are printable in Latin-1 first, the others after."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*printable, *(byte for byte in range(NUM_BYTES) if byte not in printable)]


def _byte_symbols() -> list[str]:
    """The printable stand-in of each byte of `_byte_order`: itself, or the next character after the bytes."""
    others = iter(range(NUM_BYTES, 2 * NUM_BYTES))
    return [chr(byte) if chr(byte).isprintable() and byte > 32 else chr(next(others)) for byte in _byte_order()]


def _backend(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Backend:
    backend = Backend(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix=END_OF_WORD, continuing_subword_prefix=""))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _with_marks(vocab: dict[str, int], merges: list[tuple[str, str]], context_length: int) -> Backend:
    """The finished backend of bytes and merges: marks, truncation and padding as other readers of the file expect them."""
    backend = _backend(vocab, merges)
    backend.add_special_tokens([SOT, EOT])
    ends = [(SOT, len(vocab)), (EOT, len(vocab) + 1)]
    backend.post_processor = processors.TemplateProcessing(single=f"{SOT} $A {EOT}", special_tokens=ends)
    backend.enable_truncation(context_length)
    backend.enable_padding(pad_id=PAD_ID, pad_token=_byte_symbols()[PAD_ID])
    return backend


def _bytes_vocab() -> dict[str, int]:
    """The 512 entries that every vocabulary starts with."""
    symbols = _byte_symbols()
    vocab = {symbol: index for index, symbol in enumerate(symbols)}
    return vocab | {symbol + END_OF_WORD: NUM_BYTES + index for index, symbol in enumerate(symbols)}


class _Words(dict[str, bytes]):
    """The ids, as int32 in memory, of what stands between two spaces of a clean text: worked out at the first request.

    Pieces between spaces are tokenised alone, because the word pattern never matches white space. Several threads may ask.
    """

    def __init__(self, backend: Backend, sot_id: int, eot_id: int):
        super().__init__({BETWEEN: np.array([eot_id, sot_id], np.int32).tobytes()})
        self._backend = Backend.from_str(backend.to_str())
        self._backend.normalizer = None  # type: ignore[assignment]  # what comes here is clean, and NFC is no part of that
        self._backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True

    def __missing__(self, word: str) -> bytes:
        parts = SPLIT.findall(word)
        encoding = self._backend.encode(parts, is_pretokenized=True, add_special_tokens=False)
        ids = np.array(encoding.ids, np.int32).tobytes()
        if len(self) < MAX_WORDS and len(word) <= MAX_WORD_CHARS:
            self[word] = ids
        return ids


class Tokenizer:
    """Texts in, token ids out."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self._backend.encode_special_tokens = True  # a text that spells a mark is only text
        self.vocab_size: int = backend.get_vocab_size()
        truncation = backend.truncation
        assert truncation is not None
        self.context_length: int = truncation["max_length"]
        self.sot_id, self.eot_id = self.vocab_size - 2, self.vocab_size - 1
        self._words = _Words(backend, self.sot_id, self.eot_id)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tokenizer":
        """The tokenizer in the bytes of a tokenizer.json that `to_bytes` made. Raises ValueError for others."""
        try:
            text = data.decode("utf-8")
            kind = json.loads(text)["model"]["type"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"tokenizer.json: expected a file of the tokenizers library, found {error!r}") from None
        if kind != "BPE":
            raise ValueError(f"tokenizer.json: expected a model of type BPE, found {kind!r}")
        backend = Backend.from_str(text)
        size = backend.get_vocab_size()
        if backend.token_to_id(EOT) != size - 1 or backend.token_to_id(SOT) != size - 2 or backend.truncation is None:
            raise ValueError(f"tokenizer.json: expected {SOT} and {EOT} as the last of {size} entries, and a context length")
        return cls(backend)

    @classmethod
    def from_vocabulary(cls, data: bytes, context_length: int) -> "Tokenizer":
        """The tokenizer in the bytes of a tokenizer.json or of OpenAI's vocabulary. Raises ValueError for others.

        A tokenizer.json must cut texts at `context_length`.
        """
        if data.lstrip()[:1] != b"{":
            return cls.from_openai(data, context_length)
        tokenizer = cls.from_bytes(data)
        if tokenizer.context_length != context_length:
            found = f"tokenizer.json: expected a context length of {context_length}, found {tokenizer.context_length}"
            raise ValueError(f"{found}; give the model the same --model.text.context-length")
        return tokenizer

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, context_length: int) -> "Tokenizer":
        """Learn up to `vocab_size` entries from `texts`; fewer where they hold fewer pairs that occur twice."""
        vocab = _bytes_vocab()
        learner = _backend({}, [])
        # Pairs that are equally frequent are merged in the order of their ids. Marks get theirs first, the others in the
        # order of a hash table that is another in every run: so all 512 are told as marks.
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 2,
            min_frequency=2,
            show_progress=False,
            end_of_word_suffix=END_OF_WORD,
            special_tokens=list(vocab),
        )
        learner.train_from_iterator(map(clean, texts), trainer)
        merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
        merges = merges[: max(0, vocab_size - 2 - len(vocab))]
        for left, right in merges:
            vocab[left + right] = len(vocab)
        return cls(_with_marks(vocab, merges, context_length))

    @classmethod
    def from_openai(cls, data: bytes, context_length: int = OPENAI_CONTEXT_LENGTH) -> "Tokenizer":
        """OpenAI's vocabulary from the bytes of its bpe_simple_vocab_16e6.txt.gz, packed or not. Raises ValueError for others.

        The file: a line of its version, then merges, two symbols on a line, more of them than the vocabulary takes.
        """
        found = files.sha256(data)
        if found not in OPENAI_SHA256:
            raise ValueError(
                f"tokenizer: expected OpenAI's bpe_simple_vocab_16e6.txt.gz (sha256 {OPENAI_SHA256[0][:12]}...), found "
                f"{len(data):,} bytes with sha256 {found[:12]}...; the file is in OpenAI's release and in open_clip_torch"
            )
        text = (gzip.decompress(data) if found == OPENAI_SHA256[0] else data).decode("utf-8")
        vocab = _bytes_vocab()
        lines = text.split("\n")[1 : OPENAI_SIZE - 2 - len(vocab) + 1]
        merges: list[tuple[str, str]] = []
        for line in lines:
            left, right = line.split()
            merges.append((left, right))
            vocab[left + right] = len(vocab)
        return cls(_with_marks(vocab, merges, context_length))

    def to_bytes(self) -> bytes:
        """The content of tokenizer.json."""
        return self._backend.to_str(pretty=False).encode()

    def export(self) -> dict[str, bytes]:
        """Files by the names that other libraries read: tokenizer.json, and vocab.json with merges.txt (Hugging Face)."""
        model = json.loads(self._backend.to_str())["model"]
        vocab = self._backend.get_vocab(with_added_tokens=True)
        ordered = dict(sorted(vocab.items(), key=lambda entry: entry[1]))
        lines = ["#version: 0.2", *(" ".join(merge) for merge in model["merges"])]
        return {
            "tokenizer.json": self.to_bytes(),
            "vocab.json": json.dumps(ordered, ensure_ascii=False).encode(),
            "merges.txt": ("\n".join(lines) + "\n").encode(),
        }

    def encode(self, texts: Sequence[str], truncate: bool = True) -> np.ndarray:
        """Token ids, padded with zeros to the context length.  B texts -> [B, context_length] int32

        Raises ValueError for a text that is too long where `truncate` is off.
        """
        rows = np.zeros((len(texts), self.context_length), np.int32)
        if not len(texts):
            return rows
        # One string of all texts: what follows is a few calls a batch, none for a text or a word.
        words = f" {BETWEEN} ".join([clean(text) for text in texts]).lower().split()
        inner = np.frombuffer(b"".join(map(self._words.__getitem__, words)), np.int32)
        flat = np.concatenate(([self.sot_id], inner, [self.eot_id]), dtype=np.int32)
        ends = np.flatnonzero(flat == self.eot_id)
        lengths = np.diff(ends, prepend=-1)
        if not truncate and lengths.max() > self.context_length:
            worst = int(lengths.argmax())
            raise ValueError(
                f"tokenizer: expected at most {self.context_length} tokens, found {lengths[worst]} in text {worst}: "
                f"{texts[worst][:60]!r}"
            )
        columns = np.arange(len(flat)) - np.repeat(ends + 1 - lengths, lengths)
        places = np.repeat(np.arange(len(texts)) * self.context_length, lengths) + columns
        keep = columns < self.context_length
        rows.reshape(-1)[places[keep]] = flat[keep]
        rows[lengths > self.context_length, -1] = self.eot_id
        return rows

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids, padded with zeros to the longest of the texts.  B texts -> [B, L] int64"""
        rows = self.encode(texts)
        longest = int((rows != PAD_ID).any(0).nonzero()[0].max(initial=0)) + 1
        return torch.from_numpy(rows[:, :longest].astype(np.int64))

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text as the vocabulary spells them, marks included: for reports and people."""
        row = self.encode([text])[0]
        return [str(self._backend.id_to_token(int(token))) for token in row[: int(row.argmax()) + 1]]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of token ids up to the first EOT: lower case, a space after each word, bytes that are no text replaced."""
        values: list[int] = []
        for token in map(int, ids):
            if token == self.eot_id:
                break
            if token != self.sot_id:
                values.append(token)
        spelled = "".join(str(self._backend.id_to_token(token)) for token in values)
        by_symbol = {symbol: byte for byte, symbol in zip(_byte_order(), _byte_symbols(), strict=True)}
        words = [bytes(by_symbol[symbol] for symbol in word) for word in spelled.split(END_OF_WORD)]
        return " ".join(word.decode("utf-8", errors="replace") for word in words).strip()
