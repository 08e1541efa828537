"""A tokenizer of another project as ours: its vocabulary and merges in our file.

in      a folder with a tokenizer.json of the `tokenizers` library: byte pairs, the marks last, as every CLIP's
out     Tokenizer
"""

import json
import os

from model import files
from model.formats.errors import BadModel
from model.tokenizer import EOT, SOT, Tokenizer

MAX_BYTES = 50_000_000


def from_folder(folder: str, context_length: int) -> Tokenizer:
    """The tokenizer of a model's folder. Raises BadModel where it is not of CLIP's kind."""
    path = files.join(folder, "tokenizer.json")
    if os.path.getsize(path) > MAX_BYTES:
        raise BadModel(f"{path}: expected at most {MAX_BYTES:,} bytes, found {os.path.getsize(path):,}")
    try:
        theirs = json.loads(files.read(path))
        vocab = {token: id_ for token, id_ in theirs["model"]["vocab"].items() if token not in (SOT, EOT)}
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in theirs["model"]["merges"]]
        suffix = theirs["model"].get("end_of_word_suffix")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadModel(f"{path}: expected a file of the tokenizers library, found {error!r}") from None
    own = json.loads(Tokenizer.train([], 514, context_length).to_bytes())
    start = own["model"]["vocab"]
    if suffix != own["model"]["end_of_word_suffix"] or any(vocab.get(token) != id_ for token, id_ in start.items() if id_ < 512):
        raise BadModel(f"{path}: expected CLIP's byte pairs, the 512 byte symbols first, found another order or kind")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise BadModel(f"{path}: expected the ids 0 to {len(vocab) - 1} once each, then {SOT} and {EOT}")
    ends = {SOT: len(vocab), EOT: len(vocab) + 1}
    own["model"] |= {"vocab": vocab, "merges": merges}
    for token in own["added_tokens"]:
        token["id"] = ends[token["content"]]
    for name, mark in own["post_processor"]["special_tokens"].items():
        mark["ids"] = [ends[name]]
    return Tokenizer.from_bytes(json.dumps(own).encode())
