"""`scow version`: needs no engine and no root."""

from __future__ import annotations

import os
import sys

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command("[OPTIONS]", (Flag("format", "json, or a Go template", "string", "f"),))
ASYNC = False


def main(cli: Cli, args: Args) -> int:
    """Prints versions by name."""
    from scow import __version__
    from scow.model.architectures import ARCHITECTURES

    machine = os.uname()
    facts = {
        "Version": __version__,
        "PythonVersion": ".".join(str(part) for part in sys.version_info[:3]),
        "Os": "linux",
        "Arch": ARCHITECTURES.get(machine.machine, (machine.machine, ""))[0],
        "KernelVersion": machine.release,
    }
    form = args.text("format")
    if form:
        cli.out(_formatted(form, facts))
        return 0
    cli.out("scow")
    for title, key in (("Version", "Version"), ("Python version", "PythonVersion"), ("Kernel", "KernelVersion")):
        cli.out(f" {title + ':':<17}{facts[key]}")
    cli.out(f" {'OS/Arch:':<17}{facts['Os']}/{facts['Arch']}")
    return 0


def _formatted(form: str, facts: dict[str, str]) -> str:
    from scow_plugins.cli._format import render
    from scow_plugins.cli._functions import to_json

    # `{{.Server.Version}}` and `{{.Client.Version}}` are what scripts written for docker ask for.
    data = {**facts, "Client": facts, "Server": facts}
    return to_json(facts) if form == "json" else render(form, data)
