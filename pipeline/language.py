"""Language: whether a text is clearly in another language than the wanted one.

in      texts in UTF-8, normal (NFC), of any length
out     per text the decision of py3langid's model: another language is most probable, with MIN_OTHER or more, and the wanted
        one has less than MAX_WANTED
law     decisions are those of py3langid's own code, but for probabilities within rounding (1e-5) of the two limits
cost    110,000 texts/s on one core (tests/benchmarks/language.py); the model is loaded once a worker, in 1.3 s of CPU
source  py3langid 0.4 (naive Bayes over byte n-grams, model in the package): chosen by tests/benchmarks/language.py among the
        libraries that carry their model; its tables are walked here by compiled code
"""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pipeline import strings
from pipeline.compiled import compiled, inner

MIN_OTHER, MAX_WANTED = 0.3, 0.001  # probabilities that make an identification confident
_log1p = np.log1p(np.arange(64)).astype(np.float32)


@inner
def probabilities(text, lower, moves, rows, features, weights, priors, aliases, counts, found, scores) -> None:
    """Fill `scores` with the probability of each language. Scratch: counts [features] zeros, found [as long as the text].

    text    [bytes] uint8; lower: take capital ASCII letters as small ones
    moves, rows, features   the automaton: moves[rows[state] << 8 | byte] is the next state, features[state] what it has seen
    weights [features, languages], priors [languages]: logarithms; aliases: [n, 2] columns that are one language
    """
    state, num_found = np.int64(0), 0
    for i in range(len(text)):
        byte = np.int64(text[i])
        if lower and 65 <= byte <= 90:
            byte += 32
        state = np.int64(moves[(np.int64(rows[state]) << 8) + byte])
        feature = features[state]
        if feature >= 0:
            if counts[feature] == 0:
                found[num_found] = feature
                num_found += 1
            counts[feature] += 1
    scores[:] = 0
    if num_found:
        scores[:] = priors
    for i in range(num_found):
        count, row = counts[found[i]], weights[found[i]]
        counts[found[i]] = 0
        weight = _log1p[count] if count < 64 else np.float32(math.log1p(count))
        for language in range(len(scores)):
            scores[language] += weight * row[language]
    best = scores.max()
    scale = np.float32(1 / math.sqrt(max(len(text), 1)))
    total = np.float32(0)
    for language in range(len(scores)):
        scores[language] = math.exp((scores[language] - best) * scale)
        total += scores[language]
    for language in range(len(scores)):
        scores[language] /= total
    for i in range(len(aliases)):
        scores[aliases[i, 0]] += scores[aliases[i, 1]]
        scores[aliases[i, 1]] = 0


@inner
def is_foreign(text, lower, model, wanted, counts, found, scores) -> bool:
    """True where the text is surely in another language than number `wanted`. model: as Model.tables."""
    moves, rows, features, weights, priors, aliases = model
    probabilities(text, lower, moves, rows, features, weights, priors, aliases, counts, found, scores)
    best = scores.argmax()
    return best != wanted and scores[best] >= MIN_OTHER and scores[wanted] < MAX_WANTED


@compiled
def _are_foreign(data, offsets, model, wanted, counts, found, scores, answers):
    """Write is_foreign of each text."""
    for i in range(len(offsets) - 1):
        answers[i] = is_foreign(data[offsets[i] : offsets[i + 1]], False, model, wanted, counts, found, scores)


class Model:
    """py3langid's model as arrays, or with load=False one of no languages. `languages`: the code of each column."""

    def __init__(self, *, load: bool = True) -> None:
        model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True) if load else None
        self.languages: list[str] = list(model.nb_classes) if model else []
        first = {code: self.languages.index(code) for code in self.languages}
        aliases = [(first[code], column) for column, code in enumerate(self.languages) if first[code] != column]
        self.tables = (
            np.asarray(model.tk_nextmove if model else (), np.uint32),
            np.asarray(model.tk_row if model else (), np.uint32),
            np.asarray(model.tk_output if model else (), np.int32),
            np.asarray(model.nb_ptc if model else np.empty((0, 0)), np.float32),
            np.asarray(model.nb_pc if model else (), np.float32),
            np.array(aliases, np.int64).reshape(-1, 2),
        )

    def scratch(self, max_bytes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the compiled functions need for texts of at most so many bytes: counts, found, scores."""
        weights = self.tables[3]
        return np.zeros(len(weights), np.int32), np.empty(max_bytes + 1, np.int32), np.empty(len(self.languages), np.float32)

    def are_foreign(self, texts: Sequence[str], wanted: str) -> np.ndarray:
        """For each text, in NFC, True where it is surely in another language than `wanted`.  [n] -> [n] bool"""
        column = pa.array([text.lower() if text.isupper() else text for text in texts], pa.string())
        data, offsets = strings.views(column)
        answers = np.empty(len(texts), np.bool_)
        scratch = self.scratch(int(np.diff(offsets).max(initial=0)))
        _are_foreign(data, offsets, self.tables, self.languages.index(wanted), *scratch, answers)
        return answers
