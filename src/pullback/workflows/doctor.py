"""Examination of two files before a registration: what may go wrong, and how to mend it."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from pullback.files import Finding, Severity, audit, audit_pair

COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


def examine(fixed: str | Path, moving: str | Path | None = None) -> tuple[Finding, ...]:
    """Return what is remarkable in each file and in how their images lie to each other, the worst first.

    Raises:
        InputError: no such file, or none that opens as an image.
    """
    found = audit(fixed)
    if moving is not None:
        found = (*found, *audit(moving), *audit_pair(fixed, moving))
    return tuple(sorted(found, key=lambda finding: [*Severity].index(finding.severity)))


def layout(findings: Sequence[Finding]) -> Table:
    """Return a table with a row for each finding: its severity, what it is, and below it what to do."""
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for finding in findings:
        said = Text.assemble(finding.what, "\n", (finding.remedy, "italic"))
        rows.add_row(Text(finding.severity.value, COLOURS[finding.severity]), said)
    return rows


def verdict(findings: Sequence[Finding]) -> str:
    """Say in one sentence what to expect of registering these files."""
    counts = {severity: sum(f.severity is severity for f in findings) for severity in Severity}
    said = [f"{n} {severity.value}{'s' * (n > 1)}" for severity, n in counts.items() if n]
    if counts[Severity.ERROR]:
        end = "mend the errors first"
    elif counts[Severity.WARNING]:
        end = "it will run; look at the result with the warnings in mind"
    else:
        end = "nothing stands in the way"
    return f"{', '.join(said) or 'nothing found'}: {end}"
