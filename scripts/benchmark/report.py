"""The report: medians side by side, ratios, and whether the targets hold; the same as JSON."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmark.figures import Figure, Sample, Target
from benchmark.runner import Results

OURS, STOCK = "pillarbox", "aiosmtpd"
PEERS = ("maildir", "mdbox")
_NONE = "–"


def table(figures: Sequence[Figure], results: Results) -> str:
    """Markdown, as it goes into docs/performance.md."""
    lines = [*_heading(results), ""]
    lines += _rows(("what", "unit", *_columns(), "÷ peer", "÷ stock", "must", "aim", "holds"), figures, results)
    lines += ["", "Rates, operations a second:", ""]
    lines += _rate_rows(figures, results)
    lines += _remarks(results)
    return "\n".join(lines)


def as_json(figures: Sequence[Figure], results: Results) -> dict[str, Any]:
    """Everything, every sample too."""
    return {
        "machine": _machine(),
        "versions": results.versions,
        "left_out": results.left_out,
        "memory_mib": results.memory_mib,
        "cpu_exact": results.exact,
        "cut_short": results.cut_short,
        "figures": [_figure_json(figure, results) for figure in figures],
    }


def missed(figures: Sequence[Figure], results: Results) -> list[str]:
    """The figures that failed or do not reach what they must."""
    failed = [f"{name} ({label}): {reason}" for (name, label), reason in results.failures.items() if label == OURS]
    return failed + [
        f"{figure.name}: {ratio:.2f} × {target.against}, must be ≤ {target.must:.2f}"
        for figure in figures
        for target in figure.targets
        if target.must is not None and (ratio := _ratio(figure, target.against, results)) and ratio > target.must
    ]


def _columns() -> tuple[str, ...]:
    return ("pillarbox", "maildir", "mdbox", "aiosmtpd")


def _heading(results: Results) -> list[str]:
    machine = _machine()
    measured = "; ".join(f"{label}: {version}" for label, version in results.versions.items())
    return [
        f"{time.strftime('%Y-%m-%d %H:%M')}, {machine['cores']} cores, {machine['cpu']}, Linux {machine['kernel']}",
        measured,
        "Median (least–greatest) of the rounds. CPU: user + system of all processes, a message or operation.",
    ]


def _rows(heads: Sequence[str], figures: Sequence[Figure], results: Results) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for figure in figures:
        cells = [figure.what, figure.unit, *(_cell(figure, label, results) for label in _columns())]
        cells += [_ratio_text(figure, "peer", results), _ratio_text(figure, "stock", results)]
        cells += [_bounds(figure.targets, "must"), _bounds(figure.targets, "aim"), _verdict(figure, results)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _rate_rows(figures: Sequence[Figure], results: Results) -> list[str]:
    lines = ["| what | " + " | ".join(_columns()) + " |", "|" + "---|" * (1 + len(_columns()))]
    for figure in figures:
        if figure.unit in ("ms CPU", "µs CPU"):
            rates = (_median([sample.rate for sample in _samples(figure, label, results)]) for label in _columns())
            lines.append(f"| {figure.what} | " + " | ".join(_number(rate) for rate in rates) + " |")
    return lines


def _remarks(results: Results) -> list[str]:
    lines = [""]
    memory = ", ".join(f"{label} {mib:.0f} MiB" for label, mib in results.memory_mib.items())
    lines.append(f"Memory after the start (PSS of all processes): {memory}.")
    lines += [f"Left out: {label}: {reason}" for label, reason in results.left_out.items()]
    lines += [f"Failed: {name} on {label}: {reason}" for (name, label), reason in results.failures.items()]
    if not results.exact:
        lines.append(
            "CPU was read from process trees (no cgroup v2 as root): children that ended unreaped are not in it."
        )
    if results.cut_short:
        lines.append("The run was cut short by its time limit.")
    return lines


def _cell(figure: Figure, label: str, results: Results) -> str:
    values = [sample.value for sample in _samples(figure, label, results)]
    if not values:
        return "failed" if (figure.name, label) in results.failures else _NONE
    spread = f" ({_number(min(values))}–{_number(max(values))})" if len(values) > 1 else ""
    return _number(_median(values)) + spread


def _ratio(figure: Figure, against: str, results: Results) -> float | None:
    """Our median by theirs; of the peers the better one counts."""
    ours = _value(figure, OURS, results)
    labels = PEERS if against == "peer" else (STOCK,)
    theirs = [value for label in labels if (value := _value(figure, label, results))]
    return ours / min(theirs) if ours is not None and theirs else None


def _ratio_text(figure: Figure, against: str, results: Results) -> str:
    ratio = _ratio(figure, against, results)
    return _NONE if ratio is None else f"{ratio:.2f}"


def _bounds(targets: Sequence[Target], which: str) -> str:
    bounds = [(getattr(target, which), target.against) for target in targets]
    return ", ".join(f"≤ {bound:.2f} {against}" for bound, against in bounds if bound is not None) or _NONE


def _verdict(figure: Figure, results: Results) -> str:
    """Do all the musts hold that can be judged?"""
    judged = [
        ratio <= target.must
        for target in figure.targets
        if target.must is not None and (ratio := _ratio(figure, target.against, results)) is not None
    ]
    return _NONE if not judged else "yes" if all(judged) else "NO"


def _samples(figure: Figure, label: str, results: Results) -> list[Sample]:
    return results.samples.get((figure.name, label), [])


def _value(figure: Figure, label: str, results: Results) -> float | None:
    return _median([sample.value for sample in _samples(figure, label, results)])


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _figure_json(figure: Figure, results: Results) -> dict[str, Any]:
    labels = [label for label in _columns() if _samples(figure, label, results)]
    return {
        "name": figure.name,
        "what": figure.what,
        "unit": figure.unit,
        "median": {label: _value(figure, label, results) for label in labels},
        "ratio": {against: _ratio(figure, against, results) for against in ("peer", "stock")},
        "targets": [asdict(target) for target in figure.targets],
        "holds": {"yes": True, "NO": False}.get(_verdict(figure, results)),
        "samples": {
            label: [asdict(s) | {"rate": s.rate} for s in _samples(figure, label, results)] for label in labels
        },
        "failures": {label: reason for (name, label), reason in results.failures.items() if name == figure.name},
    }


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown CPU"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
