"""Tar layers for storage plugins: streams, archives, safe extraction, copies, snapshots that are directories."""

from __future__ import annotations

from scow.layers.apply import Check, Settle, apply_layer
from scow.layers.attributes import Attributes, read_attributes, write_attributes
from scow.layers.changes import overlay_changes, tree_changes, upper_changes
from scow.layers.codecs import plain, sniff
from scow.layers.copying import copy_content, copy_node, copy_tree
from scow.layers.directories import unpack_directory
from scow.layers.erofs.apply import write_empty_image, write_image
from scow.layers.erofs.below import LowerStack
from scow.layers.extract import Extractor, translated
from scow.layers.imagefiles import SnapshotFiles
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.layers.making import Build, make_snapshot
from scow.layers.marks import mark_opaque, write_overlay_marks
from scow.layers.removal import empty_directory, remove_tree
from scow.layers.snapshots import SnapshotDirectory, erase_directory
from scow.layers.stack import detached, merged_view, open_directory
from scow.layers.stream import LayerStream
from scow.layers.tar import Entry, TarReader
from scow.layers.tree import Tree
from scow.layers.trial import mount_problem, try_overlay
from scow.layers.writable import claimed_scratch, overlay_mounted, writable_layer
from scow.layers.writer import Member, TarWriter, write_changes, write_tree

__all__ = [
    "Attributes",
    "Build",
    "Check",
    "Entry",
    "Extractor",
    "LayerStream",
    "Limits",
    "LowerStack",
    "LowerTree",
    "Member",
    "Settle",
    "SnapshotDirectory",
    "SnapshotFiles",
    "TarReader",
    "TarWriter",
    "Tree",
    "apply_layer",
    "claimed_scratch",
    "copy_content",
    "copy_node",
    "copy_tree",
    "detached",
    "empty_directory",
    "erase_directory",
    "make_snapshot",
    "mark_opaque",
    "merged_view",
    "mount_problem",
    "open_directory",
    "overlay_changes",
    "overlay_mounted",
    "plain",
    "read_attributes",
    "remove_tree",
    "sniff",
    "translated",
    "tree_changes",
    "try_overlay",
    "unpack_directory",
    "upper_changes",
    "writable_layer",
    "write_attributes",
    "write_changes",
    "write_empty_image",
    "write_image",
    "write_overlay_marks",
    "write_tree",
]
