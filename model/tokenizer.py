"""The tokenizer: byte-level byte-pair encoding as CLIP's, trained on the dataset's own texts.

in      texts
out     tokenizer.json of the `tokenizers` library; token ids [B, L], SOT ... EOT and zeros
law     256 bytes, 256 bytes that end a word, merges, SOT, EOT: in this order, so EOT is the largest id; the same texts
        give the same file; a text that spells a mark is text; over-long texts are cut and keep their EOT
source  CLIP section 2.4 (lower case, byte pairs); the word pattern and the order of ids are OpenAI's
"""

import json
from collections.abc import Iterable

import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from torch import Tensor

from model import files

SOT, EOT = "<|startoftext|>", "<|endoftext|>"
PAD_ID = 0
END_OF_WORD = "</w>"
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # a number is a digit at a time
NUM_BYTES = 256


def _byte_symbols() -> list[str]:
    """The printable stand-in of each byte, in OpenAI's order: bytes that are printable first, the others after."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = NUM_BYTES - len(printable)
    return [chr(byte) for byte in printable] + [chr(NUM_BYTES + index) for index in range(others)]


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
    def from_file(cls, path: str) -> "Tokenizer":
        """The tokenizer in a tokenizer.json, local or remote."""
        return cls.from_bytes(files.read(path))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int, context_length: int) -> "Tokenizer":
        """Learn up to `vocab_size` entries from `texts`; fewer where they hold fewer pairs that occur twice."""
        symbols = _byte_symbols()
        vocab = {symbol: index for index, symbol in enumerate(symbols)}
        vocab |= {symbol + END_OF_WORD: NUM_BYTES + index for index, symbol in enumerate(symbols)}
        learner = _backend({}, [])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 2,
            min_frequency=2,
            show_progress=False,
            end_of_word_suffix=END_OF_WORD,
            initial_alphabet=symbols,
        )
        learner.train_from_iterator(texts, trainer)
        merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
        merges = merges[: max(0, vocab_size - 2 - len(vocab))]
        for left, right in merges:
            vocab[left + right] = len(vocab)
        backend = _backend(vocab, merges)
        backend.add_special_tokens([SOT, EOT])
        ends = [(SOT, len(vocab)), (EOT, len(vocab) + 1)]
        backend.post_processor = processors.TemplateProcessing(single=f"{SOT} $A {EOT}", special_tokens=ends)
        backend.enable_truncation(context_length)
        backend.enable_padding(pad_id=PAD_ID, pad_token=symbols[PAD_ID])
        return cls(backend)

    def to_bytes(self) -> bytes:
        """The content of tokenizer.json."""
        return self._backend.to_str(pretty=False).encode()

    def __call__(self, texts: list[str]) -> Tensor:
        """Token ids, padded with zeros to the longest of the texts.  B texts -> [B, L] int64"""
        return torch.tensor([encoding.ids for encoding in self._backend.encode_batch(texts)], dtype=torch.int64)

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text as the vocabulary spells them, marks included: for reports and people."""
        return self._backend.encode(text).tokens
