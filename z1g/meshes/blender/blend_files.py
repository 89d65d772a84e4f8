"""Objects out of a .blend file: its shapes and materials, never its world, render settings or scripts."""

from collections.abc import Iterator
from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
from faults import MeshError


def append(name: str) -> None:
    """Append what the file's first scene (by name) would render; a file without scenes gives all its objects.

    Nothing in the file runs: text blocks only run when a file is opened, and drivers in Python not while auto-run is
    off. Raises OSError where the file cannot be read, MeshError where it links another file that is missing.
    """
    with bpy.data.libraries.load(name) as (there, mine):
        mine.scenes = sorted(there.scenes)[:1]
        if not there.scenes:
            mine.objects = there.objects
    missing = sorted({library.filepath for library in bpy.data.libraries if library.is_missing})
    if missing:
        raise MeshError(f"linked file missing: {', '.join(missing)}")
    objects = set(mine.objects)
    for theirs in mine.scenes:
        objects.update(_rendered(theirs.view_layers[0].layer_collection))
        bpy.context.scene.frame_set(theirs.frame_current)
    _link(objects)
    bpy.data.batch_remove(mine.scenes)
    bpy.data.orphans_purge(do_recursive=True)


def _rendered(layer: Any) -> Iterator[Any]:
    """Objects of a layer collection that a render would show."""
    if layer.exclude or layer.collection.hide_render:
        return
    yield from layer.collection.objects
    for child in layer.children:
        yield from _rendered(child)


def _link(objects: set[Any]) -> None:
    """Into the scene, visible as in a render. Parents that the render left out come along hidden: they place others."""
    chosen = bpy.context.scene.collection.objects
    for thing in sorted(objects, key=lambda thing: thing.name_full):
        thing.hide_render |= thing.is_shadow_catcher or thing.is_holdout
        chosen.link(thing)
        parent = thing.parent
        while parent is not None and parent not in objects and parent.name not in chosen:
            parent.hide_render = True
            chosen.link(parent)
            parent = parent.parent
    for thing in chosen:
        # Bounds are measured on what the viewport shows.
        thing.hide_viewport = thing.hide_render
        for modifier in thing.modifiers:
            modifier.show_viewport = modifier.show_render
