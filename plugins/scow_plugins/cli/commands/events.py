"""`scow events`: what happens, in docker's lines, as JSON, or through a template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._filters import has_label
from scow_plugins.cli._flags import Args, Command, Flag

if TYPE_CHECKING:
    from scow.engine import Event

COMMAND = Command(
    "[OPTIONS]",
    (
        Flag(
            "filter",
            "type, event, container, image, label, plugin=value; type=stage shows what plugins do",
            "list",
            "f",
        ),
        Flag("format", "json, or a Go template", "string"),
        Flag("since", "From this time on (2026-01-02T13:23:37Z), or so long ago (42m)", "string"),
        Flag("until", "Up to this time", "string"),
    ),
)


async def main(cli: Cli, args: Args) -> int:
    """Prints a line for each event, until --until or Ctrl-C."""
    from scow_plugins.cli._filters import passes, read
    from scow_plugins.cli._moments import moment
    from scow_plugins.cli._stdio import ended

    since, until = moment(cli, args, "since"), moment(cli, args, "until")
    wanted = read(args.all("filter"), _TESTS)
    # What stages do is scow's own and far more than anybody waits for: it is shown to those who ask for it.
    stages = not wanted.keys().isdisjoint({"type", "plugin"})
    form = args.text("format")
    follow = until is None or until > cli.clock()
    async with (
        cli.engine() as engine,
        engine.events(since=since, until=until, follow=follow) as stream,
        ended(stream) as events,
    ):
        async for event in events:
            if (stages or event.kind != "stage") and passes(event, wanted, _TESTS):
                cli.out(_line(event, form))
    return 0


def _container(event: Event, value: str) -> bool:
    subject = str(event.attributes.get("container", event.id if event.kind == "container" else ""))
    return bool(subject and value) and (subject.startswith(value) or event.attributes.get("name") == value)


def _image(event: Event, value: str) -> bool:
    from scow_plugins.cli._names import familiar

    names = (event.id if event.kind == "image" else "", event.attributes.get("image"), event.attributes.get("name"))
    return any(name and familiar(str(name)) == familiar(value) for name in names)


_TESTS = {
    "type": lambda event, value: event.kind == value,
    "event": lambda event, value: event.action == value,
    "container": _container,
    "label": lambda event, value: has_label(event.attributes, value),
    "image": _image,
    "plugin": lambda event, value: event.attributes.get("plugin") == value,
}


def _line(event: Event, form: str | None) -> str:
    from scow_plugins.cli._format import render
    from scow_plugins.cli._functions import go_text, to_json
    from scow_plugins.cli._units import local_stamp, printable

    if form == "json":
        return to_json(_shape(event))
    if form:
        return render(form, _shape(event))
    facts = ", ".join(f"{key}={go_text(value)}" for key, value in sorted(event.attributes.items()))
    return printable(
        f"{local_stamp(event.time)} {event.kind} {event.action} {event.id}" + (f" ({facts})" if facts else "")
    )


def _shape(event: Event) -> dict[str, Any]:
    """Docker's JSON for an event."""
    from scow_plugins.cli._evaluate import FreeMap
    from scow_plugins.cli._functions import go_text

    # Docker's attributes are text, whatever they count.
    facts = FreeMap({key: go_text(value) for key, value in event.attributes.items()})
    return {
        "status": event.action,
        "id": event.id,
        "from": facts.get("image", ""),
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": facts},
        "scope": "local",
        "time": int(event.time),
        "timeNano": round(event.time * 1e9),
    }
