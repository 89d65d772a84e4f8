"""Where the vertices of a glTF file are: transforms of nodes, morph targets and skins at the first frame.

The first frame is that of the first key of each channel of the first animation, which is what Blender shows after an
import. Sections refer to the specification (Khronos Group, glTF 2.0, 2021).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from z1g.meshes.raster.scene import MeshError, Part

Array = NDArray[Any]
LARGEST_DEPTH = 500
MOST_SETS = 8
"""Sets of four joints of a vertex that are read."""


class Pose:
    """The first frame of a document; `accessor` reads values [N,K]."""

    def __init__(self, document: dict[str, Any], accessor: Callable[[int], Array]) -> None:
        self._nodes: list[dict[str, Any]] = document.get("nodes", [])
        self._document, self._accessor = document, accessor
        self._parents = {child: i for i, node in enumerate(self._nodes) for child in node.get("children", [])}
        self._worlds: dict[int, Array] = {}
        self._keys: dict[int, dict[str, Array]] | None = None

    def morphed(self, part: Part, primitive: dict[str, Any], node: int) -> Part:
        """A part with the morph targets of its primitive, by their weights (section 3.7.2.2)."""
        targets, weights = primitive.get("targets", []), self._weights(node)
        positions, normals = part.positions, part.normals
        for target, weight in zip(targets, weights, strict=False):
            if weight and "POSITION" in target:
                positions = positions + weight * self._accessor(target["POSITION"])
            if weight and "NORMAL" in target and normals is not None:
                normals = normals + weight * self._accessor(target["NORMAL"])
        return replace(part, positions=positions, normals=normals)

    def placed(self, part: Part, attributes: dict[str, int], node: int) -> Part:
        """A part in the world: moved by its node, or by the joints of its node's skin (section 3.7.3)."""
        skin = self._nodes[node].get("skin")
        if skin is None or "JOINTS_0" not in attributes:
            return _moved(part, self._world(node))
        matrices = self._joint_matrices(self._document["skins"][skin])
        blended = np.zeros((len(part.positions), 4, 4))
        total = np.zeros(len(part.positions))
        for k in range(MOST_SETS):
            if f"JOINTS_{k}" not in attributes:
                break
            joints = self._accessor(attributes[f"JOINTS_{k}"]).astype(np.int64)
            weights = self._accessor(attributes[f"WEIGHTS_{k}"]).astype(np.float64)
            if joints.shape != (len(blended), 4) or weights.shape != joints.shape or joints.max() >= len(matrices):
                raise MeshError("the joints of a skin do not fit its mesh")
            for joint, weight in zip(joints.T, weights.T, strict=True):
                blended += weight[:, None, None] * matrices[joint]
                total += weight
        # Vertices without a joint stay with the first one.
        shares = total[:, None, None]
        blended = np.where(shares > 0, blended / np.where(shares > 0, shares, 1), matrices[0])
        positions = np.einsum("nij,nj->ni", blended[:, :3, :3], part.positions) + blended[:, :3, 3]
        normals = part.normals
        if normals is not None:
            normals = np.einsum("nij,nj->ni", _cofactors(blended[:, :3, :3]), normals)
        return replace(part, positions=positions, normals=normals)

    def _joint_matrices(self, skin: dict[str, Any]) -> Array:
        """World matrices [J,4,4] of points in the bind pose."""
        worlds = np.stack([self._world(joint) for joint in skin["joints"]])
        if "inverseBindMatrices" not in skin:
            return worlds
        # Matrices are stored by columns.
        binds = self._accessor(skin["inverseBindMatrices"]).astype(np.float64).reshape(-1, 4, 4).transpose(0, 2, 1)
        return worlds @ binds[: len(worlds)]

    def _world(self, node: int) -> Array:
        if node not in self._worlds:
            chain = [node]
            while chain[-1] in self._parents and chain[-1] not in self._worlds:
                chain.append(self._parents[chain[-1]])
                if len(chain) > LARGEST_DEPTH:
                    raise MeshError(f"nodes are nested deeper than {LARGEST_DEPTH}, or in a circle")
            for index in reversed(chain):
                above = self._worlds[self._parents[index]] if index in self._parents else np.eye(4)
                self._worlds.setdefault(index, above @ self._local(index))
        return self._worlds[node]

    def _local(self, index: int) -> Array:
        return local({**self._nodes[index], **{name: key for name, key in self._first_keys(index).items() if len(key)}})

    def _weights(self, node: int) -> Array:
        """Weights of the morph targets of a node's mesh."""
        own = self._nodes[node]
        fixed = own.get("weights", self._document["meshes"][own["mesh"]].get("weights", []))
        return self._first_keys(node).get("weights", np.asarray(fixed, np.float64))

    def _first_keys(self, node: int) -> dict[str, Array]:
        """Values of a node's animated properties."""
        if self._keys is None:
            self._keys = {}
            for animation in self._document.get("animations", [])[:1]:
                for channel in animation["channels"]:
                    target = channel["target"]
                    if "node" in target and target["path"] != "pointer":
                        key = self._first_key(animation["samplers"][channel["sampler"]], target["path"])
                        self._keys.setdefault(target["node"], {})[target["path"]] = key
        return self._keys.get(node, {})

    def _first_key(self, sampler: dict[str, Any], path: str) -> Array:
        times, values = self._accessor(sampler["input"]), self._accessor(sampler["output"]).astype(np.float64)
        key = values[: len(values) // len(times)]
        if sampler.get("interpolation") == "CUBICSPLINE":
            key = np.split(key, 3)[1]  # between two tangents (appendix C.5)
        return key[:, 0] if path == "weights" else key[0]


def local(node: dict[str, Any]) -> Array:
    """A node's transform [4,4] to its parent (section 3.5.3)."""
    if "matrix" in node and not {"translation", "rotation", "scale"} & node.keys():
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    scale = np.array(node.get("scale", (1, 1, 1)), np.float64)
    rotation = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation * scale, node.get("translation", (0, 0, 0))
    return matrix


def _moved(part: Part, world: Array) -> Part:
    """A part after an affine transform. Mirroring keeps the outside outside: section 3.7.4 turns the faces round."""
    linear = world[:3, :3]
    triangles = part.triangles[:, ::-1] if np.linalg.det(linear) < 0 else part.triangles
    normals = part.normals
    if normals is not None:
        normals = normals @ _cofactors(linear).T * np.sign(np.linalg.det(linear) or 1.0)
    return replace(part, positions=part.positions @ linear.T + world[:3, 3], triangles=triangles, normals=normals)


def _cofactors(linear: Array) -> Array:
    """Matrices [...,3,3] that turn normals: unlike the inverse transposed, they exist for flat scales as well."""
    a, b, c = (linear[..., i, :] for i in range(3))
    return np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=-2)
