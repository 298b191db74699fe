"""From words to a command: global options, the command's module, its flags, its exit code."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from scow_plugins.cli._cli import Cli, StdoutClosed
from scow_plugins.cli._flags import Args, Command, Flag, UsageError, near, parse
from scow_plugins.cli._report import PIPE_CODE, report
from scow_plugins.cli._table import COMMANDS, GROUPS

#: Global options that are understood behind a command's name, too.
EVERYWHERE: Final = (
    Flag("trace", "Write what happens to a file that Perfetto opens", "string"),
    Flag("log-level", "debug, info, warning or error", "string", short="l"),
    Flag("log-format", "console or json", "string"),
)
GLOBALS: Final = (
    Flag("root", "Where images and containers are kept (environment: SCOW_ROOT)", "string"),
    Flag("run", "Where files live that don't survive a reboot (environment: SCOW_RUN)", "string"),
    Flag("config", "Read this configuration file too", "string"),
    *EVERYWHERE,
    Flag("debug", "Show tracebacks of errors", short="D"),
    Flag("version", "Print the version and quit", short="v"),
)
_GLOBAL: Final = Command("[OPTIONS] COMMAND", GLOBALS, most=None, interspersed=False)
_RUNNING: Final = frozenset({"run", "create"})


def main(argv: list[str], cli: Cli | None = None) -> int:
    """Run one command; gives its exit code. Every failure is told here."""
    cli = cli or Cli()
    try:
        return _main(argv, cli)
    except StdoutClosed:
        return PIPE_CODE
    except BaseException as error:  # noqa: BLE001 - the last handler: everything becomes a line and an exit code
        return report(cli, error, runs=cli.words.rpartition(" ")[2] in _RUNNING)


def _main(argv: list[str], cli: Cli) -> int:
    args = parse(_GLOBAL, argv)
    if args.on("help") or (not args.words and not args.on("version")):
        from scow_plugins.cli._help import main_help

        cli.out_bytes(main_help(GLOBALS).encode())
        return 0
    if args.on("version"):
        from scow import __version__

        cli.out(f"scow version {__version__}")
        return 0
    cli.configure(args)
    return _command(cli, list(args.words))


def _command(cli: Cli, words: list[str]) -> int:
    name, *rest = words
    if name in GROUPS:
        return _group(cli, name, rest)
    if name not in COMMANDS:
        raise UsageError(f"unknown command: scow {name}", hint=near(name, (*COMMANDS, *GROUPS), "scow "))
    return invoke(cli, name, name, rest)


def _group(cli: Cli, group: str, words: list[str]) -> int:
    cli.words = group
    if not words or words[0] in ("--help", "-h"):
        from scow_plugins.cli._help import group_help

        cli.out_bytes(group_help(group).encode())
        return 0
    name, *rest = words
    target = GROUPS[group].commands.get(name)
    if target is None:
        raise UsageError(
            f"unknown command: scow {group} {name}", hint=near(name, GROUPS[group].commands, f"scow {group} ")
        )
    return invoke(cli, target, f"{group} {name}", rest)


def invoke(cli: Cli, name: str, words: str, rest: list[str]) -> int:
    """Parse a command's own words and run it: in the event loop if its `main` is asynchronous."""
    cli.words = words
    module = load(name)
    command: Command = module.COMMAND
    args = parse(_with_globals(command), rest)
    cli.configure_more(args)
    if args.on("help"):
        from scow_plugins.cli._help import command_help

        cli.out_bytes(command_help(words, COMMANDS[name].summary, command).encode())
        return 0
    return _run(module, cli, args)


def _with_globals(command: Command) -> Command:
    """The command's own flags, and the global ones that it has no other meaning for."""
    own = {name for flag in command.flags for name in (flag.name, *flag.also)}
    more = [flag._replace(short="") for flag in EVERYWHERE if flag.name not in own]
    return command._replace(flags=(*command.flags, *more))


def _run(module: ModuleType, cli: Cli, args: Args) -> int:
    check = getattr(module, "check", None)
    if check is not None:
        check(cli, args)
    if not getattr(module, "ASYNC", True):
        return int(module.main(cli, args))
    import trio

    return int(trio.run(module.main, cli, args))


def load(name: str) -> ModuleType:
    """The module of a command, imported now."""
    import importlib

    return importlib.import_module(f"scow_plugins.cli.commands.{COMMANDS[name].module}")
