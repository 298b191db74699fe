"""`scow plugins`: what there is, where it comes from, whether it works here, and what is picked."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command("[OPTIONS]", (Flag("format", "table, json, a Go template, or table and a template", "string"),))
_TITLES = {
    "Name": "NAME",
    "Stages": "STAGES",
    "Distribution": "DISTRIBUTION",
    "Version": "VERSION",
    "Works": "WORKS",
    "Picked": "PICKED",
    "WhyNot": "WHY NOT",
}


async def main(cli: Cli, args: Args) -> int:
    """Prints a line for each plugin."""
    from scow_plugins.cli._format import show

    async with cli.engine() as engine:
        plugins = engine.plugins()
    rows = [
        {
            "Name": plugin.name,
            "Stages": ",".join(plugin.stages),
            "Distribution": plugin.distribution,
            "Version": plugin.version,
            "Works": "no" if plugin.problem else "yes",
            "Picked": ",".join(plugin.picked),
            "WhyNot": plugin.problem or "",
        }
        for plugin in plugins
    ]
    for line in show(rows, args.text("format"), columns=tuple(_TITLES), titles=_TITLES):
        cli.out(line.rstrip())
    return 0
