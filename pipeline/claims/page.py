"""docs/results.md, made from the JSONs under docs/results/ alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.claims.arms import ARMS, FULL, LEAVE_OUT
from pipeline.claims.comparisons import (
    EVERYDAY,
    UNSEEN,
    Comparison,
    claims_of,
    compare,
    figure_of,
    forgetting,
    forgetting_verdict,
)
from pipeline.claims.plots import draw_differences
from pipeline.claims.result import RESULTS, ArmResult, by_seed, load_results, moves_roles, short
from unigendet.metrics.paired import FEWEST_SEEDS, PairedDifference

PAGE = Path("docs") / "results.md"
_WORDS = {
    UNSEEN: "AUROC, unseen families",
    EVERYDAY: "AUROC, everyday photographs",
    "nll_unseen": "verdict loss (nats), unseen families",
    "auroc_in_domain": "AUROC, in domain",
    "balanced_accuracy_unseen": "balanced accuracy, unseen families",
    "kd": "KD of generated images",
    "fd": "FD of generated images",
    "flow_loss": "flow loss on test images",
}
_HEAD = f"""# Results

Made by `make claims` from the JSONs under `docs/results/`; do not edit. Arms of a seed share real
images, pretrained generator, forged fakes and test images, and the pretrained detector unless the
arm changes how that is trained; they take the same steps, and the same loss weights unless the arm
changes them. The fresh fakes of later rounds are by each arm's own generator, and DIGA's teacher
looks at real images as in the full method, also where the detector judges without latents.

A difference is full method minus control, mean over seeds. Student's interval decides the word in
the last column ("helps", "hurts", "no effect shown"): it is over seeds, on these test images. A
bootstrap over seeds and images stands beside it where single scores enter. Fewer than
{FEWEST_SEEDS} seeds give no interval. Intervals are of 95 % each and not corrected for their
number. Unseen families are those that the detector did not learn from, that the project's own
autoencoder did not decode and that reach the floor of quality; fakes by an arm's own co-evolved
generator are in no figure here. The everyday photographs are too few to say anything of others. KD
and FD are on EfficientNet-Lite0 features of images drawn without guidance, and flatter the arm
`efficientnet_teacher`; the flow loss is on test images at fixed timesteps and noise; lower is
better.
"""
_NOTHING = """
No results yet: `make claims` runs the five arms at five seeds (some hours on two cores), goes on
where it was interrupted, and writes this page.
"""


def write_page(workspace: Path) -> list[str]:
    """Writes the page and its plots; returns why where results of a profile cannot be compared."""
    folders = sorted(path for path in (workspace / RESULTS).glob("*") if path.is_dir())
    parts, wrong = [_HEAD], list[str]()
    for folder in folders:
        try:
            results = load_results(folder)
        except ValueError as error:
            # The other profiles have their tables all the same.
            wrong.append(f"profile {folder.name}: {error}")
            parts.append(f"## Profile {folder.name}\n\nNo table: these results need mending.\n")
            continue
        if results:
            parts.append(_profile(folder, results))
    page = workspace / PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(parts if len(parts) > 1 else [_HEAD + _NOTHING]), encoding="utf-8")
    return wrong


def _profile(folder: Path, results: Sequence[ArmResult]) -> str:
    paired = [one for one in results if not moves_roles(one)]
    claims = claims_of(paired)
    comparisons = [found for claim in claims if (found := compare(paired, claim)) is not None]
    lines = [f"## Profile {folder.name}", ""]
    if comparisons or by_seed(paired):
        lines += _claims(comparisons, forgetting(paired), sorted({one.seed for one in paired}))
    if comparisons:
        plot = folder / "differences.png"
        draw_differences(plot, comparisons, _WORDS)
        lines += [f"![differences by seed]({RESULTS.name}/{folder.name}/{plot.name})", ""]
    if paired:
        lines += _arms(paired)
    others = [one for one in results if moves_roles(one)]
    if own := [one for one in others if one.arm.startswith(LEAVE_OUT)]:
        lines += _left_out(own)
    if changed := [one for one in others if not one.arm.startswith(LEAVE_OUT)]:
        said = "Arms that change the data, so that nothing is paired:"
        lines += _table(said, sorted({one.arm for one in changed}), changed)
    return "\n".join([*lines, *_origin(results)])


def _claims(
    comparisons: Sequence[Comparison], kept: PairedDifference | None, seeds: Sequence[int]
) -> list[str]:
    lines = [
        "| claim | figure | full | control | difference | over seeds (t) | over seeds and images | "
        "n | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    above = ""
    for one in comparisons:
        name = one.claim.name if one.claim.name != above else ""
        above = one.claim.name
        name = f"**{name}**" if one.claim.main else name
        word = f"**{one.verdict}**" if one.claim.main else one.verdict
        more = ""
        if one.hierarchical:
            more = f"{_interval(one.hierarchical)}, {one.sources} sources"
        missing = [seed for seed in seeds if seed not in one.seeds]
        without = f" (without {', '.join(map(str, missing))})" if missing else ""
        cells = [
            name,
            _WORDS[one.claim.figure] + (", lower is better" if one.claim.better < 0 else ""),
            f"{np.mean(one.full):.4f}",
            f"{np.mean(one.control):.4f} (`{one.claim.control}`)",
            f"{one.student.value:+.4f}",
            _interval(one.student),
            more,
            f"{one.student.seeds}{without}",
            word,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if kept is not None:
        lines.append(
            "| **The last DIGA phase costs detection at most 0.01** | AUROC, in domain, after it "
            "minus before it | | | "
            f"{kept.value:+.4f} | {_interval(kept)} | | {kept.seeds} | "
            f"**{forgetting_verdict(kept)}** |"
        )
    return [*lines, ""]


def _interval(found: PairedDifference) -> str:
    if found.low is None or found.high is None:
        return "too few seeds"
    return f"[{found.low:+.4f}, {found.high:+.4f}]"


def _arms(results: Sequence[ArmResult]) -> list[str]:
    names = [name for name in ARMS if by_seed(results, name)]
    names += sorted({one.arm for one in results} - set(names))
    said = "Mean over an arm's seeds, and the standard deviation between them:"
    return _table(said, names, results)


def _left_out(results: Sequence[ArmResult]) -> list[str]:
    said = "One family left out at a time: the only test family, the others train or validate."
    return _table(said, sorted({one.arm for one in results}), results)


def _table(said: str, names: Sequence[str], results: Sequence[ArmResult]) -> list[str]:
    lines = [
        said,
        "",
        f"| arm | changes | n | {' | '.join(_WORDS.values())} |",
        "| --- | --- | --- |" + " --- |" * len(_WORDS),
    ]
    for name in names:
        own = by_seed(results, name)
        changes = next(iter(own.values())).overrides
        told = ", ".join(f"`{key}={value}`" for key, value in changes.items())
        if name.startswith(LEAVE_OUT):
            told = f"`{name.removeprefix(LEAVE_OUT)}` is the only test family"
        cells = [_spread([figure_of(one, figure) for one in own.values()]) for figure in _WORDS]
        lines.append(f"| {name} | {told or 'nothing'} | {len(own)} | {' | '.join(cells)} |")
    return [*lines, ""]


def _spread(values: Sequence[float]) -> str:
    defined = [value for value in values if np.isfinite(value)]
    if not defined:
        return "undefined"
    told = f"{np.mean(defined):.4f}"
    if len(defined) > 1:
        told += f" ± {np.std(defined, ddof=1):.4f}"
    return told if len(defined) == len(values) else f"{told} (n = {len(defined)})"


def _origin(results: Sequence[ArmResult]) -> list[str]:
    full = next((one for one in results if one.arm == FULL), results[0])
    weights = ", ".join(f"{name} {value:.4g}" for name, value in full.weights.items())
    whose = "every arm that does not change them" if full.arm == FULL else f"`{full.arm}`"
    machines = sorted(
        {
            f"{m['cores']} x {m['cpu']}, torch {m['torch']}, Python {m['python']}"
            for m in (one.machine for one in results)
        }
    )
    commands = sorted({one.command for one in results})
    seeds = ", ".join(map(str, sorted({one.seed for one in results})))
    codes = len({one.code for one in results})
    hours = sum(sum(one.seconds.values()) for one in results) / 3600
    return [
        f"Seeds {seeds}. Loss weights of {whose}: "
        f"{weights}. Parameters `{full.base}` (without arm and seed).",
        "",
        *(f"- Command: `{command}`" for command in commands),
        *(f"- Machine: {machine}" for machine in machines),
        f"- Revisions: {', '.join(sorted({short(one.revision) for one in results}))}"
        + (f"; {codes} states of the code that decides figures" if codes > 1 else ""),
        f"- {len(results)} runs, at most {hours:.1f} hours (stages that arms share are counted "
        "for each)",
        "",
    ]
