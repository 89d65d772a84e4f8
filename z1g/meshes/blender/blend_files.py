"""Import of objects from .blend files: shapes and materials, without world, render settings and scripts."""

from collections.abc import Iterator
from typing import Any

import bpy  # type: ignore[import-not-found,unused-ignore]
from faults import MeshError


def append(name: str) -> None:
    """Append the objects that the file's first scene (by name) renders, or all objects of a file without scenes.

    No code in the file runs: text blocks run only when a file is opened, and Python drivers only with auto-run
    enabled. Raises OSError if the file cannot be read, MeshError if it links to a missing file.
    """
    with bpy.data.libraries.load(name) as (library, local):
        local.scenes = sorted(library.scenes)[:1]
        if not library.scenes:
            local.objects = library.objects
    missing = sorted({library.filepath for library in bpy.data.libraries if library.is_missing})
    if missing:
        raise MeshError(f"linked file missing: {', '.join(missing)}")
    objects = set(local.objects)
    for scene in local.scenes:
        objects.update(_rendered(scene.view_layers[0].layer_collection))
        bpy.context.scene.frame_set(scene.frame_current)
    _link(objects)
    bpy.data.batch_remove(local.scenes)
    bpy.data.orphans_purge(do_recursive=True)


def _rendered(layer: Any) -> Iterator[Any]:
    """Objects of a layer collection that are rendered."""
    if layer.exclude or layer.collection.hide_render:
        return
    yield from layer.collection.objects
    for child in layer.children:
        yield from _rendered(child)


def _link(objects: set[Any]) -> None:
    """Link objects to the scene with their render visibility, and hidden parents, which define their transforms."""
    linked = bpy.context.scene.collection.objects
    for item in sorted(objects, key=lambda item: item.name_full):
        item.hide_render |= item.is_shadow_catcher or item.is_holdout
        linked.link(item)
        parent = item.parent
        while parent is not None and parent not in objects and parent.name not in linked:
            parent.hide_render = True
            linked.link(parent)
            parent = parent.parent
    for item in linked:
        # Bounds are computed from the objects that are visible in the viewport.
        item.hide_viewport = item.hide_render
        for modifier in item.modifiers:
            modifier.show_viewport = modifier.show_render
