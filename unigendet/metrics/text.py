"""How close decoded explanations are to their references, one value per pair in [0, 1].

- **ROUGE-L**: F-measure of the longest common subsequence, stemmed words (`rouge_score`).
- **TF-IDF-CSS**: cosine of TF-IDF vectors fitted on the two texts alone, which is what the
  published evaluation calls CSS: it rewards shared words, not shared meaning.
- **MiniLM-CSS**: cosine of sentence embeddings (`metrics.sentences`), below 0 set to 0.

An empty answer scores 0. Scores on this project's own reference texts cannot be set beside
published ones, whose references were written by other means.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from unigendet.metrics.bootstrap import Floats

_WORD = re.compile(r"\b\w\w+\b")


def _check(answers: Sequence[str], references: Sequence[str]) -> None:
    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers do not match {len(references)} references")


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> Floats:
    """ROUGE-L F-measures, (n,)."""
    from rouge_score.rouge_scorer import RougeScorer

    _check(answers, references)
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    scores = [
        scorer.score(reference, answer)["rougeL"].fmeasure
        for answer, reference in zip(answers, references, strict=True)
    ]
    return np.asarray(scores, dtype=np.float64)


def _tfidf_cosine(a: str, b: str) -> float:
    """Smooth idf over the two texts: ln(3 / (1 + df)) + 1, so a shared word weighs 1."""
    counts_a, counts_b = (Counter(_WORD.findall(text.lower())) for text in (a, b))
    if not counts_a or not counts_b:
        return 0.0

    def idf(word: str) -> float:
        return math.log(3.0 / (1 + (word in counts_a) + (word in counts_b))) + 1.0

    def norm(counts: Counter[str]) -> float:
        return math.sqrt(sum((count * idf(word)) ** 2 for word, count in counts.items()))

    dot = sum(counts_a[word] * counts_b[word] for word in counts_a if word in counts_b)
    return dot / (norm(counts_a) * norm(counts_b))


def tfidf_similarity(answers: Sequence[str], references: Sequence[str]) -> Floats:
    """TF-IDF-CSS, (n,)."""
    _check(answers, references)
    pairs = zip(answers, references, strict=True)
    return np.asarray([_tfidf_cosine(a, r) for a, r in pairs], dtype=np.float64)


def sentence_similarity(answers: Sequence[str], references: Sequence[str]) -> Floats:
    """MiniLM-CSS, (n,)."""
    from unigendet.metrics.sentences import embed

    _check(answers, references)
    unique = list(dict.fromkeys([*answers, *references]))
    row = {text: index for index, text in enumerate(unique)}
    table = embed(unique).astype(np.float64)
    left = table[[row[text] for text in answers]]
    right = table[[row[text] for text in references]]
    cosine = np.maximum((left * right).sum(1), 0.0)
    present = np.asarray([bool(text.strip()) for text in answers])
    return np.asarray(np.where(present, cosine, 0.0))
