"""The configuration files: layers, merge, and mistakes named by key and file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from scow import config as module
from scow.api import PluginContext
from scow.config import Config, config_files, load_config
from scow.errors import Invalid


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Places for the system's, the user's and the explicit file."""
    places = {
        "system": tmp_path / "etc" / "config.toml",
        "user": tmp_path / "xdg" / "scow" / "config.toml",
        "explicit": tmp_path / "explicit.toml",
    }
    for path in places.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(module, "SYSTEM_FILE", places["system"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    return places


def test_nothing_there(files: dict[str, Path]) -> None:
    assert load_config() == Config()


def test_layers_are_merged_key_by_key(files: dict[str, Path]) -> None:
    files["system"].write_text('storage="a"\nnetwork="n"\nplugin_order=["x"]\n[plugins.bridge]\nmtu=1\nsubnet="s"\n')
    files["user"].write_text('storage="b"\nplugin_order=["y"]\n[plugins.bridge]\nmtu=2\n')
    files["explicit"].write_text('storage="c"\n[plugins.other]\nz=1\n')
    config = load_config(files["explicit"])
    assert (config.storage, config.network, config.plugin_order) == ("c", "n", ("y",))
    assert config.settings("bridge") == {"mtu": 2, "subnet": "s"}
    assert config.settings("other") == {"z": 1}
    assert load_config().storage == "b"


def test_registries_are_the_registry_plugins(files: dict[str, Path]) -> None:
    files["user"].write_text(
        '[registries."docker.io"]\nmirrors=["http://127.0.0.1:5000"]\n[plugins.registry]\nretries=1\n'
    )
    settings = load_config().settings("registry")
    assert settings == {"retries": 1, "registries": {"docker.io": {"mirrors": ["http://127.0.0.1:5000"]}}}
    assert load_config().settings("host") == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 1", "'colour'"),
        ("storage = 1", "storage"),
        ('log_level = "loud"', "log_level"),
        ('parallel_fetches = "3"', "parallel_fetches"),
        ("parallel_fetches = 0", "parallel_fetches"),
        ("parallel_fetches = -1", "parallel_fetches"),
        ("launcher_idle = -1", "launcher_idle"),
        ("launcher_idle = nan", "launcher_idle"),
        ("plugins = 1", "plugins"),
        ("plugins.bridge = 1", "plugins"),
        ("= 1", "config.toml"),
        ("storage = 'a'\nstorage = 'b'", "config.toml"),
    ],
)
def test_mistakes_are_named_with_their_file(files: dict[str, Path], text: str, named: str) -> None:
    files["user"].write_text(text)
    with pytest.raises(Invalid) as caught:
        load_config()
    assert str(files["user"]) in caught.value.message
    assert named in caught.value.message


def test_files_that_cannot_be_read(files: dict[str, Path]) -> None:
    with pytest.raises(Invalid, match="explicit"):
        load_config(files["explicit"])
    files["user"].write_bytes(b'storage = "\xff"')
    with pytest.raises(Invalid, match="xdg"):
        load_config()


def test_xdg_else_home(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / ".config" / "scow" / "config.toml"
    home.parent.mkdir(parents=True)
    home.write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert config_files(None) == [home]


@dataclass
class Settings:
    mtu: int = 1500
    subnets: tuple[str, ...] = ()


def context(**settings: object) -> PluginContext:
    return PluginContext("bridge", Path("/s"), Path("/r"), settings)


def test_plugin_settings() -> None:
    assert context().config(Settings) == Settings()
    assert context(mtu=1400, subnets=["a"]).config(Settings) == Settings(1400, ("a",))
    with pytest.raises(Invalid, match=r"plugins\.bridge has no key 'mut'"):
        context(mut=1).config(Settings)
    with pytest.raises(Invalid, match=r"plugins\.bridge: .*mtu"):
        context(mtu="x").config(Settings)
