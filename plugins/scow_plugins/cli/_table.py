"""Which commands there are: their one-line summaries and modules, so that `scow --help` imports none of them."""

from __future__ import annotations

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """A command: the module of `scow_plugins.cli.commands` that has it, and what it does in a line."""

    module: str
    summary: str


class Group(NamedTuple):
    """A management command: words, and the command that each of them means."""

    summary: str
    commands: dict[str, str]
    #: Second names, left out of the help.
    hidden: frozenset[str]


COMMANDS: Final[dict[str, Entry]] = {
    "attach": Entry("attach", "Attach local standard input, output and error to a running container"),
    "build": Entry("build", "Build an image from a Dockerfile"),
    "builder du": Entry("builder_du", "Show what builds have left, and the space it takes"),
    "builder prune": Entry("builder_prune", "Remove build cache"),
    "cache export": Entry("cache_export", "Write a cache mount of builds as a tar archive"),
    "cache import": Entry("cache_import", "Make a cache mount of a tar archive"),
    "cache ls": Entry("cache_ls", "List the cache mounts of builds (RUN --mount=type=cache)"),
    "cache rm": Entry("cache_rm", "Remove cache mounts of builds"),
    "commit": Entry("commit", "Create an image from a container's changes"),
    "container prune": Entry("container_prune", "Remove all stopped containers"),
    "cp": Entry("cp", "Copy files and directories between a container and this machine"),
    "create": Entry("create", "Create a new container"),
    "diff": Entry("diff", "Show what a container has changed in its root file system"),
    "events": Entry("events", "Follow what happens, in every process of this engine"),
    "exec": Entry("exec", "Execute a command in a running container"),
    "export": Entry("export", "Write a container's root file system as a tar archive"),
    "fsck": Entry("fsck", "Check the store's blobs and layers against their digests"),
    "gc": Entry("gc", "Keep the store below a size: remove what was used longest ago"),
    "history": Entry("history", "Show how an image was made"),
    "image prune": Entry("image_prune", "Remove unused images"),
    "images": Entry("images", "List images"),
    "import": Entry("import_", "Make an image of an archive of a file system"),
    "info": Entry("info", "Display system-wide information"),
    "inspect": Entry("inspect", "Return low-level information on containers and images"),
    "kill": Entry("kill", "Kill one or more running containers"),
    "load": Entry("load", "Load images from an archive or standard input"),
    "login": Entry("login", "Log in to a registry"),
    "logout": Entry("logout", "Log out of a registry"),
    "logs": Entry("logs", "Fetch the logs of a container"),
    "pause": Entry("pause", "Pause all processes within one or more containers"),
    "plugins": Entry("plugins", "List plugins: their stages, whether they work here, and which are picked"),
    "ps": Entry("ps", "List containers"),
    "pull": Entry("pull", "Download an image from a registry"),
    "push": Entry("push", "Upload an image to a registry"),
    "restart": Entry("restart", "Restart one or more containers"),
    "rm": Entry("rm", "Remove one or more containers"),
    "rmi": Entry("rmi", "Remove one or more images"),
    "run": Entry("run", "Create and run a new container from an image"),
    "save": Entry("save", "Save images to an archive, by default to standard output"),
    "search": Entry("search", "Search Docker Hub for images"),
    "start": Entry("start", "Start one or more stopped containers"),
    "stop": Entry("stop", "Stop one or more running containers"),
    "system df": Entry("system_df", "Show what takes how much space"),
    "system prune": Entry("system_prune", "Remove unused data"),
    "tag": Entry("tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "unpause": Entry("unpause", "Unpause all processes within one or more containers"),
    "version": Entry("version", "Show the version of scow"),
    "wait": Entry("wait", "Block until one or more containers stop, then print their exit codes"),
}

#: Listed first by `scow --help`.
COMMON: Final = ("run", "exec", "ps", "build", "pull", "images", "version", "info")

GROUPS: Final[dict[str, Group]] = {
    "builder": Group("Manage builds", {"build": "build", "du": "builder du", "prune": "builder prune"}, frozenset()),
    "cache": Group(
        "Manage cache mounts of builds",
        {
            "export": "cache export",
            "import": "cache import",
            "list": "cache ls",
            "ls": "cache ls",
            "remove": "cache rm",
            "rm": "cache rm",
        },
        frozenset({"list", "remove"}),
    ),
    "container": Group(
        "Manage containers",
        {
            "attach": "attach",
            "commit": "commit",
            "cp": "cp",
            "create": "create",
            "diff": "diff",
            "exec": "exec",
            "export": "export",
            "inspect": "inspect",
            "kill": "kill",
            "list": "ps",
            "logs": "logs",
            "pause": "pause",
            "prune": "container prune",
            "ls": "ps",
            "ps": "ps",
            "remove": "rm",
            "restart": "restart",
            "rm": "rm",
            "run": "run",
            "start": "start",
            "stop": "stop",
            "unpause": "unpause",
            "wait": "wait",
        },
        frozenset({"list", "ps", "remove"}),
    ),
    "image": Group(
        "Manage images",
        {
            "build": "build",
            "history": "history",
            "import": "import",
            "inspect": "inspect",
            "list": "images",
            "load": "load",
            "ls": "images",
            "prune": "image prune",
            "pull": "pull",
            "push": "push",
            "remove": "rmi",
            "rm": "rmi",
            "save": "save",
            "tag": "tag",
        },
        frozenset({"list", "remove"}),
    ),
    "system": Group(
        "Manage scow", {"df": "system df", "events": "events", "info": "info", "prune": "system prune"}, frozenset()
    ),
}


def aliases(words: str) -> list[str]:
    """All the ways to write a command, `words` among them; `inspect` means something else in each group."""
    if " " in words and words in COMMANDS:
        return [words]
    name = words.rpartition(" ")[2]
    group = words.partition(" ")[0] if " " in words else ""
    target = GROUPS[group].commands[name] if group else name
    if target == "inspect" or " " in target:
        return [words]
    longer = [
        f"{title} {word}" for title, each in GROUPS.items() for word, aim in each.commands.items() if aim == target
    ]
    return [*longer, target]
