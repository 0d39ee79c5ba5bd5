"""F10: which samples go into which batch."""

from __future__ import annotations

from tests.golden.fixtures import Case
from unigendet.data.packing_loop import PackingLimits, PackingLoop, SampleGroup

FIXTURE = "F10_*/*"


def test_batches(case: Case) -> None:
    for number, published in enumerate(case.value("cases")):
        lengths = published["text_lengths"]
        draws = iter(published["uniform_draws"])
        loop = PackingLoop(
            groups=[
                SampleGroup(iter([(group, i) for i in range(len(words))]), weight, mandatory)
                for group, (words, weight, mandatory) in enumerate(
                    zip(lengths, published["weights"], published["is_mandatory"], strict=True)
                )
            ],
            limits=PackingLimits(**published["params"]),
            size=lambda sample, lengths=lengths: lengths[sample[0]][sample[1]] + 2,
            draw=lambda draws=draws: next(draws),
            as_published=True,
        )
        for index, (batch, expected) in enumerate(zip(loop, published["batches"], strict=False)):
            assert [list(sample) for sample in batch] == expected["samples"], (number, index)
            assert sum(map(loop.size, batch)) == expected["sequence_length"], (number, index)
            if index + 1 == len(published["batches"]):
                break
        assert index + 1 == len(published["batches"])
        assert not list(draws), "the loop drew less often than the published one"
