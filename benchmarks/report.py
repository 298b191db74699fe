"""Turns measurements into a table of ratios and a plot."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Results:
    """Samples by measurement and engine, in the unit that the measurement names."""

    versions: dict[str, str]
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    #: The engine that the others are compared with.
    base: str = "scow"

    def add(self, measurement: str, engine: str, value: float) -> None:
        """Keep one sample."""
        self.samples.setdefault(measurement, {}).setdefault(engine, []).append(value)

    def write(self, directory: Path) -> None:
        """results.json, results.md, and results.svg where matplotlib is installed."""
        directory.mkdir(parents=True, exist_ok=True)
        kept = {"machine": _machine(), "versions": self.versions, "samples": self.samples}
        (directory / "results.json").write_text(json.dumps(kept, indent=1) + "\n")
        (directory / "results.md").write_text(self.table())
        try:
            import matplotlib as mpl
        except ImportError:
            return
        mpl.use("svg")
        self._plot(directory / "results.svg")

    def table(self) -> str:
        """Median and quartiles of each, and how many times the base's each other engine takes."""
        engines = list(self.versions)
        others = [engine for engine in engines if engine != self.base]
        head = [
            "",
            *(f"{engine} {self.versions[engine]}".strip() for engine in engines),
            *(f"{e} / {self.base}" for e in others),
        ]
        rows = [head, ["---"] * len(head)]
        for measurement, by_engine in self.samples.items():
            row = [measurement]
            row += [_cell(by_engine.get(engine, [])) for engine in engines]
            row += [_ratio(by_engine.get(engine, []), by_engine.get(self.base, [])) for engine in others]
            rows.append(row)
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        note = "Median (first to third quartile, number of samples). Ratios are of medians; above 1"
        note += f" {self.base} is better."
        return f"# Benchmark results\n\n{_machine()}\n\n" + "\n".join(lines) + f"\n\n{note}\n"

    def _plot(self, path: Path) -> None:
        import matplotlib.pyplot as plt

        names = list(self.samples)
        figure, axes = plt.subplots(1, len(names), figsize=(2.4 * len(names), 3.6))
        for axis, name in zip([axes] if len(names) == 1 else axes, names, strict=True):
            by_engine = self.samples[name]
            axis.boxplot(list(by_engine.values()), widths=0.6)
            axis.set_xticks(range(1, len(by_engine) + 1), list(by_engine))
            axis.set_title(name.replace(", ", "\n"), fontsize=8)
            axis.set_ylim(bottom=0)
            axis.tick_params(labelsize=7)
        figure.tight_layout()
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    if len(values) < 3:
        return f"{statistics.median(values):.1f}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.1f} ({low:.1f} to {high:.1f}, {len(values)})"


def _ratio(theirs: list[float], ours: list[float]) -> str:
    if not theirs or not ours:
        return "-"
    return f"{statistics.median(theirs) / statistics.median(ours):.2f}"


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    model = models[0] if models else platform.machine()
    return f"Linux {platform.release()}, {os.cpu_count()} × {model}, Python {platform.python_version()}"
