"""Programs of the rasterizer, OpenGL 3.3."""

from collections.abc import Sequence

import numpy as np

from z1g.meshes.raster.scene import AlphaMode

FILTER_WIDTH = 3.0
"""Width of the pixel filter, pixels: twice Cycles' `filter_width`, which counts it like that."""

SURFACE_VERTEX = """
#version 330
uniform mat4 world_to_camera;
uniform mat4 projection;
in vec3 position;
in vec3 normal;
in vec2 uv;
in vec4 color;
out vec3 surface_normal;
out vec3 place;
out vec2 at;
out vec4 tint;
out float depth;
void main() {
    place = position;
    vec4 local = world_to_camera * vec4(position, 1.0);
    gl_Position = projection * local;
    depth = -local.z;
    surface_normal = normal;
    at = uv;
    tint = color;
}
"""

OCCLUDER_VERTEX = """
#version 330
// Axes of a parallel view: a point in it is in [-1,1]^3.
uniform vec3 right;
uniform vec3 up;
uniform vec3 away;
in vec3 position;
in vec3 normal;
in vec2 uv;
in vec4 color;
out vec3 surface_normal;
out vec2 at;
out vec4 tint;
out float depth;
void main() {
    gl_Position = vec4(dot(position, right), dot(position, up), dot(position, away), 1.0);
    depth = gl_Position.z;
    surface_normal = normal;
    at = uv;
    tint = color;
}
"""

_BASE = """
uniform sampler2D image;
uniform vec2 mirrored;    // 1 along axes on which every second repetition is a mirror image
uniform vec4 factor;
uniform float cutoff;     // of materials with the alpha mode "mask"
in vec3 surface_normal;
in vec2 at;
in vec4 tint;
in float depth;

// Opposite normals may cancel.
vec3 unit(vec3 v) { return v / max(length(v), 1e-20); }

vec4 base_color() {
    // A texture in sRGB arrives as linear values.
    vec4 base = texture(image, mix(at, 1.0 - abs(mod(at, 2.0) - 1.0), mirrored)) * factor * tint;
#if defined(MASK)
    if (base.a < cutoff) discard;
#endif
#if !defined(BLEND)
    base.a = 1.0;
#endif
    return clamp(base, 0.0, 1.0);
}
"""

_COLOR = (
    _BASE
    + """
const int MOST_SUNS = 4;
const float ROUNDING = 2e-7;
uniform float ambient;
uniform int suns;
uniform vec3 sun_direction[MOST_SUNS];   // towards the sun
uniform float sun_strength[MOST_SUNS];   // irradiance / pi
uniform sampler2D nearer;                // depth of the layer before
uniform sampler2D solid;                 // depth of what is opaque
uniform int directions;                  // 0: no ambient occlusion
uniform int columns;                     // views from each direction are in a grid
uniform int tile;                        // pixels
uniform float reach;                     // half the width of such a view
uniform sampler2D occluders;             // their depths
in vec3 place;
out vec4 color;                          // linear, premultiplied

// Whether a point is free in a direction, see bases() in occlusion.py.
bool is_free(vec3 p, vec3 d, int k) {
    float s = d.z >= 0.0 ? 1.0 : -1.0, a = -1.0 / (s + d.z), b = d.x * d.y * a;
    vec3 right = vec3(1.0 + s * d.x * d.x * a, s * b, -s * d.x), up = vec3(b, s + d.y * d.y * a, -d.y);
    vec3 seen = vec3(dot(p, right), dot(p, up), -dot(p, d)) / reach * 0.5 + 0.5;
    ivec2 pixel = ivec2(clamp(seen.xy, 0.0, 0.999) * float(tile)) + tile * ivec2(k % columns, k / columns);
    return seen.z <= texelFetch(occluders, pixel, 0).r + 1e-5;
}

// Share of the light from all directions, weighted by the cosine, that arrives at the surface.
float openness(vec3 n) {
    vec3 flat_normal = unit(cross(dFdx(place), dFdy(place)));
    if (dot(flat_normal, n) < 0.0) flat_normal = -flat_normal;
    // A view's pixels are flat: without an offset of their size, a surface would block itself.
    vec3 p = place + flat_normal * (2.4 * reach / float(tile));
    float arrived = 0.0, total = 0.0;
    for (int k = 0; k < directions; ++k) {
        float z = 1.0 - (2.0 * float(k) + 1.0) / float(directions), angle = float(k) * 2.39996322972865332;
        vec3 d = vec3(sqrt(1.0 - z * z) * vec2(cos(angle), sin(angle)), z);
        float weight = dot(d, n);
        if (weight <= 0.0) continue;
        total += weight;
        if (is_free(p, d, k)) arrived += weight;
    }
    return arrived / max(total, 1e-6);
}

void main() {
#if defined(BLEND)
    ivec2 pixel = ivec2(gl_FragCoord.xy);
    float z = gl_FragCoord.z;
    // A stored depth is rounded to 24 bits: without a tolerance, the layer before would be drawn again.
    if (z <= texelFetch(nearer, pixel, 0).r + ROUNDING || z >= texelFetch(solid, pixel, 0).r) discard;
#endif
    vec4 base = base_color();
    float light = ambient;
#if defined(LIT)
    vec3 n = gl_FrontFacing ? unit(surface_normal) : -unit(surface_normal);
    if (directions > 0) light *= openness(n);
    if (suns > 0) {
        for (int i = 0; i < suns; ++i) light += sun_strength[i] * max(0.0, dot(n, sun_direction[i]));
    }
#endif
    color = vec4(base.rgb * light, 1.0) * base.a;
}
"""
)

_GEOMETRY = (
    _BASE
    + """
out vec4 geometry;                       // normal in the world, planar depth

void main() {
    // As Cycles does, surfaces that are mostly transparent do not count.
    float alpha = base_color().a;
#if defined(BLEND)
    if (alpha < 0.5) discard;
#endif
    vec3 n = unit(surface_normal);
    geometry = vec4(gl_FrontFacing ? n : -n, depth);
}
"""
)


def color_fragment(alpha_mode: AlphaMode, lit: bool) -> str:
    """Fragment program for the color of surfaces. lit: by suns, or by ambient light that the object blocks.

    What a program need not do is not in it, as software rasterizers run both sides of a branch; without `discard`,
    rasterizers test the depth before they run the program.
    """
    return _variant(_COLOR, alpha_mode, *(["LIT"] if lit else []))


def geometry_fragment(alpha_mode: AlphaMode) -> str:
    """Fragment program for normals and depth of surfaces."""
    return _variant(_GEOMETRY, alpha_mode)


def _variant(source: str, *names: str) -> str:
    return "#version 330\n" + "".join(f"#define {name.upper()}\n" for name in names) + source


SCREEN_VERTEX = """
#version 330
void main() {
    // One triangle that covers the screen.
    gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}
"""

COPY_FRAGMENT = """
#version 330
uniform sampler2D layer;
out vec4 color;
void main() { color = texelFetch(layer, ivec2(gl_FragCoord.xy), 0); }
"""


def pixel_filter(samples: int) -> list[float]:
    """Weights along an axis of the samples of a pixel and of its two neighbors, in order: a Blackman-Harris window
    (Harris, 1978), the pixel filter of Cycles.
    """
    offsets = (np.arange(3 * samples) + 0.5) / samples - 1.5
    phases = 2 * np.pi * np.arange(4) * offsets[:, None] / FILTER_WIDTH
    weights = np.cos(phases) @ np.array([0.35875, 0.48829, 0.14128, 0.01168])
    normalized: list[float] = (weights / weights.sum()).tolist()
    return normalized


def filter_rows(weights: Sequence[float], factor: int) -> str:
    """Fragment program that filters the samples of each row into pixels.

    weights: of the samples of a pixel and its two neighbors. They are written out, as software rasterizers run the
    program four times as fast as one with a loop.
    """
    return f"""
#version 330
uniform sampler2D samples;               // linear, premultiplied
out vec4 color;
void main() {{
    int first = {factor} * int(gl_FragCoord.x), row = int(gl_FragCoord.y);
    color = {_weighted(weights, "ivec2(first + {}, row)")};
}}
"""


def resolve(weights: Sequence[float], factor: int) -> str:
    """Fragment program that filters the columns of `filter_rows`, and converts to sRGB with straight alpha."""
    return f"""
#version 330
uniform sampler2D samples;
out vec4 color;
void main() {{
    int column = int(gl_FragCoord.x), first = {factor} * int(gl_FragCoord.y);
    vec4 sum = {_weighted(weights, "ivec2(column, first + {})")};
    vec3 straight = clamp(sum.rgb / max(sum.a, 1e-6), 0.0, 1.0);
    vec3 steep = 1.055 * pow(straight, vec3(1.0 / 2.4)) - 0.055;
    color = vec4(mix(12.92 * straight, steep, greaterThan(straight, vec3(0.0031308))), sum.a);
}}
"""


def _weighted(weights: Sequence[float], place: str) -> str:
    terms = [f"{weight:.9f} * texelFetch(samples, {place.format(i)}, 0)" for i, weight in enumerate(weights)]
    return " + ".join(terms)
