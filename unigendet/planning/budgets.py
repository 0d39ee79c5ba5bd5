"""The fullest packs that a token budget lets the loader make."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from unigendet.data.composition import Budget


def fullest_packs(budget: Budget, sizes: Mapping[str, int]) -> list[dict[str, Fraction]]:
    """Samples of each stream in the fullest pack, once for each stream that may have filled it.

    A pack begins with a sample of each stream and takes others as chance draws them; it ends with
    the sample that reaches `expected_num_tokens`, which is at most `max_num_tokens_per_sample` long
    and never leads beyond `max_num_tokens`. Memory is a sum over samples, so of all mixtures the
    one that takes most is filled by a single stream. Its last sample is a part of one: a longer
    text may fill what samples of `sizes` leave.

    Args:
        sizes: tokens of a sample of each stream that the phase has.

    Raises ValueError where a mixture has none of these streams, or a sample is too long.
    """
    budget.check(sizes)
    limits = budget.limits
    drawn = {name for _, weights in budget.mixture for name in weights if weights[name] > 0}
    streams = [name for name in sizes if name in drawn]
    for name in streams:
        if sizes[name] > limits.max_num_tokens_per_sample:
            raise ValueError(
                f"a planned {name} sample takes {sizes[name]:,} tokens, more than the "
                f"{limits.max_num_tokens_per_sample:,} of token_budget.max_num_tokens_per_sample: "
                f"raise it, or plan with fewer tokens of text"
            )
    first = sum(sizes[name] for name in streams)
    last = max(first, limits.expected_num_tokens - 1) + limits.max_num_tokens_per_sample
    tokens = max(first, min(last, limits.max_num_tokens))
    one = dict.fromkeys(streams, Fraction(1))
    return [one | {name: 1 + Fraction(tokens - first, sizes[name])} for name in streams]
