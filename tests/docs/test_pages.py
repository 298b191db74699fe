"""The pages say what the code does."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scow import hookspecs
from scow.config import Build, Config
from scow.plugins import STAGES


def _sibling(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = _sibling("pages")
PROJECT: Path = pages.PROJECT
DOCS: Path = pages.DOCS
EVERY = [*pages.pages(), DOCS / "cli.md", *sorted(PROJECT.glob("*.md"))]


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.name)
def test_what_comes_from_the_code_is_as_the_code(page: Path) -> None:
    assert page.read_text() == pages.filled(page.read_text()), "run: python tests/docs/pages.py"


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(there.read_text()), f"{page.name} links to {target}"


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text()
    for page in (*pages.pages(), DOCS / "cli.md"):
        name = page.relative_to(DOCS).as_posix()
        assert name == "index.md" or f"]({name})" in index, f"{name} is missing in docs/index.md"


def test_hooks_are_described_with_their_signatures() -> None:
    headings = re.findall(r"^### `(.+)`$", (DOCS / "hooks.md").read_text(), flags=re.MULTILINE)
    specs = [f"{stage}{inspect.signature(getattr(hookspecs, stage))}".replace("'", "") for stage in STAGES]
    assert headings == specs


def test_each_hook_has_an_example() -> None:
    text = (DOCS / "hooks.md").read_text()
    for stage in STAGES:
        assert f"<!-- docs/examples/{stage}.py -->" in text


def _tables(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each table of keys, with the heading above it: key → default."""
    for section in re.split(r"^#{2,3} ", text, flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| `(\w+)` \| \w+ \| `(.+?)` \|", section, flags=re.MULTILINE)
        if rows:
            yield section.split("\n")[0], dict(rows)


def _defaults(shape: type) -> dict[str, Any]:
    return msgspec.to_builtins(shape())  # type: ignore[no-any-return]


def test_configuration_has_every_key_with_its_default() -> None:
    tables = dict(_tables((DOCS / "configuration.md").read_text()))
    shapes: dict[str, type] = {"Keys": Config, "Builds": Build}
    settings = importlib.import_module("scow_plugins.registry._settings")
    shapes["Registries"] = settings.RegistrySettings
    shapes["`[plugins.registry]`"] = settings.Settings
    for plugin in _plugins():
        module = importlib.import_module(f"scow_plugins.{plugin}")
        # What storage plugins share, unless they have something of their own.
        for name in ("StorageConfig", "Config", "Settings"):
            shape = getattr(module, name, None)
            if isinstance(shape, type) and (name == "StorageConfig" or shape.__module__ == module.__name__):
                shapes[f"`[plugins.{plugin}]`"] = shape
    assert set(tables) == set(shapes)
    for where, shape in shapes.items():
        written = {key: tomllib.loads(f"x = {default}")["x"] for key, default in tables[where].items()}
        # The registries stand in a table of their own.
        skipped = {"registries"} if shape is settings.Settings else set()
        assert written == {k: v for k, v in _plain(_defaults(shape)).items() if k not in skipped}, where


def _plugins() -> list[str]:
    table = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["entry-points"]
    return sorted({target.split(":")[0].split(".")[1] for group in table.values() for target in group.values()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def test_dependencies_are_explained() -> None:
    wanted = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    text = (DOCS / "design" / "dependencies.md").read_text()
    explained = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert sorted(explained) == sorted(re.split(r"[<>=]", entry)[0] for entry in wanted)


def test_readme_commands_name_what_is_there() -> None:
    text = (PROJECT / "README.md").read_text()
    for name in ("Run", "Test"):
        found = re.search(rf"\*\*{name}\*\*.*?```sh\n(.*?)\n```", text, flags=re.DOTALL)
        assert found is not None
        assert "\n" not in found[1], f"the {name} command is one line"
        for path in re.findall(r"(?<=\s)(?:docs|tests|benchmarks)/\S+", found[1]):
            assert (PROJECT / path).exists(), path
