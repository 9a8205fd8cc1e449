"""Run probes on a network, and keep their findings."""

from collections.abc import Sequence

from rich.progress import MofNCompleteColumn, Progress

from zoo.evaluation.outcomes import Outcomes
from zoo.evaluation.progress import progress_bar
from zoo.probes import PROBES, Probe, ProbeContext
from zoo.runs.records import Finding


def probe(
    context: ProbeContext, probes: Sequence[Probe], outcomes: Outcomes | None = None, *, progress: bool = True
) -> list[Finding]:
    """Measure every case of every probe; a probe that cannot be applied leaves a finding with the reason.

    Args:
        context: the network and its images.
        probes: what to measure.
        outcomes: verdicts of this network on these images; those in it are not computed again.
        progress: show a bar, if standard error is a terminal.
    """
    outcomes = outcomes or Outcomes()
    with progress_bar(progress, MofNCompleteColumn()) as bar:
        return [finding for each in probes for finding in _findings(context, each, outcomes, bar)]


def _findings(context: ProbeContext, probe: Probe, outcomes: Outcomes, bar: Progress) -> list[Finding]:
    name, n = PROBES.name_of(probe), len(context.labels)
    if obstacle := probe.obstacle(context):
        return [Finding(probe=name, case={}, accuracy=None, n=n, note=obstacle)]
    found, cases = [], probe.cases(context)
    task = bar.add_task(name, total=len(cases))
    for case in cases:
        key = f"{probe!r} {case!r}"
        passed = outcomes.get(key)
        if passed is None:
            passed = probe.passed(context, case)
            outcomes.put(key, passed)
        found.append(Finding(probe=name, case=case, accuracy=passed.double().mean().item(), n=n))
        bar.advance(task)
    return found
