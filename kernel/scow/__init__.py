"""scow: a container engine in which every stage between an image's name and a running process is a plugin.

`import scow` is cheap; the engine is loaded with the first use of one of the public names.
"""

#: Not typing's: importing that costs as much as all the rest of the dispatcher. Type checkers know the name.
TYPE_CHECKING = False

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scow.engine import Engine, open_engine

__all__ = ["Engine", "__version__", "open_engine"]


def __getattr__(name: str) -> object:
    if name in ("Engine", "open_engine"):
        import scow.engine

        return getattr(scow.engine, name)
    raise AttributeError(f"module 'scow' has no attribute {name!r}")
