// A splat viewer in a canvas: 16 bytes a Gaussian in one texture, sorted back to front, one quad each (Zwicker et al. 2001, EWA).
// frame: rotation [9] of the world to the splats' axes. view: {azimuth, elevation, zoom, size}, which several canvases may
// share; size is a factor on scales. wheel: whether the wheel zooms; the keys + and - always do.
// load(bytes) takes what z1g.render.web packs and returns whether the browser can draw it.
const splatCanvas = (canvas, { frame: F, radius: RADIUS, fov, view, wheel = true, onTurn = () => soon() }) => {
  const TAN = Math.tan((fov * Math.PI) / 360), WIDTH = 1024;
  let gl, program, place, n = 0, points, order, buffer, waiting = false;

  const VERTEX = `#version 300 es
  precision highp float; precision highp int; precision highp usampler2D;
  uniform usampler2D data; uniform mat3 turn; uniform vec2 size; uniform float focal; uniform float factor;
  in vec2 corner; in uint index; out vec4 color; out vec2 at;
  void main() {
    uvec4 d = texelFetch(data, ivec2(index % ${WIDTH}u, index / ${WIDTH}u), 0);
    vec3 p = vec3(d.x & 65535u, d.x >> 16, d.y & 65535u) / 65535. * float(${PACKED.span}) - float(${PACKED.span}) / 2.;
    vec3 s = exp(vec3((d.y >> 16) & 255u, d.y >> 24, d.z & 255u) / 255. * float(${PACKED.logSpan}) + float(${PACKED.logMin}));
    vec3 v = vec3((d.z >> 8) & 255u, (d.z >> 16) & 255u, d.z >> 24) / 127.5 - 1.;
    vec4 q = normalize(vec4(v, sqrt(max(0., 1. - dot(v, v)))));
    color = vec4(d.w & 255u, (d.w >> 8) & 255u, (d.w >> 16) & 255u, d.w >> 24) / 255.;
    vec3 c = turn * p + vec3(0, 0, float(${RADIUS}));
    mat3 r = mat3(
      1. - 2. * (q.y * q.y + q.z * q.z), 2. * (q.x * q.y + q.w * q.z), 2. * (q.x * q.z - q.w * q.y),
      2. * (q.x * q.y - q.w * q.z), 1. - 2. * (q.x * q.x + q.z * q.z), 2. * (q.y * q.z + q.w * q.x),
      2. * (q.x * q.z + q.w * q.y), 2. * (q.y * q.z - q.w * q.x), 1. - 2. * (q.x * q.x + q.y * q.y));
    mat3 j = mat3(focal / c.z, 0, 0, 0, focal / c.z, 0, -focal * c.x / (c.z * c.z), -focal * c.y / (c.z * c.z), 0);
    mat3 m = j * turn * r * mat3(s.x, 0, 0, 0, s.y, 0, 0, 0, s.z) * factor;
    mat3 cov = m * transpose(m);
    float a = cov[0][0] + .3, b = cov[0][1], e = cov[1][1] + .3, mid = (a + e) / 2.;
    float far = sqrt(max(0., (a - e) * (a - e) / 4. + b * b));
    vec2 first = abs(b) > 1e-6 ? normalize(vec2(b, mid + far - a)) : a >= e ? vec2(1, 0) : vec2(0, 1);
    float reach = sqrt(2. * log(max(1.0001, 255. * color.a)));
    at = corner * reach;
    vec2 px = focal * c.xy / c.z + at.x * sqrt(mid + far) * first + at.y * sqrt(max(1e-6, mid - far)) * vec2(-first.y, first.x);
    gl_Position = c.z > .05 ? vec4(px * vec2(2, -2) / size, 0, 1) : vec4(0, 0, 2, 1);
  }`;
  const FRAGMENT = `#version 300 es
  precision highp float; in vec4 color; in vec2 at; out vec4 result;
  void main() { float a = color.a * exp(-dot(at, at) / 2.); result = vec4(color.rgb * a, a); }`;

  const shader = (kind, text) => {
    const compiled = gl.createShader(kind);
    gl.shaderSource(compiled, text);
    gl.compileShader(compiled);
    if (!gl.getShaderParameter(compiled, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(compiled));
    gl.attachShader(program, compiled);
  };
  const start = () => {
    gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true });
    if (!gl) return false;
    program = gl.createProgram();
    shader(gl.VERTEX_SHADER, VERTEX);
    shader(gl.FRAGMENT_SHADER, FRAGMENT);
    gl.linkProgram(program);
    gl.useProgram(program);
    place = (name) => gl.getUniformLocation(program, name);
    const corner = gl.getAttribLocation(program, "corner"), index = gl.getAttribLocation(program, "index");
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(corner);
    gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
    buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(index);
    gl.vertexAttribIPointer(index, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(index, 1);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    return true;
  };
  const load = (bytes) => {
    if (!gl && !start()) return false;
    n = bytes.length / 16;
    const rows = Math.max(1, Math.ceil(n / WIDTH)), texels = new Uint8Array(rows * WIDTH * 16);
    texels.set(bytes);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, WIDTH, rows, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, new Uint32Array(texels.buffer));
    points = new Uint16Array(n * 3);
    const shorts = new Uint16Array(texels.buffer);
    for (let i = 0; i < n; i++) points.set(shorts.subarray(8 * i, 8 * i + 3), 3 * i);
    order = new Uint32Array(n);
    draw();
    return true;
  };
  // World to camera (OpenCV axes) times frame to world, row-major.
  const turning = () => {
    const [ce, se, ca, sa] = [Math.cos(view.elevation), Math.sin(view.elevation), Math.cos(view.azimuth), Math.sin(view.azimuth)];
    const w = [[ca, 0, -sa], [se * sa, -ce, se * ca], [-ce * sa, -se, -ce * ca]];
    return w.map((row) => [0, 1, 2].map((j) => row[0] * F[3 * j] + row[1] * F[3 * j + 1] + row[2] * F[3 * j + 2]));
  };
  // Counting sort from far to near. Quantized positions are sorted without dequantizing them.
  const sort = (z) => {
    const depth = new Float32Array(n), counts = new Uint32Array(65537);
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < n; i++) {
      depth[i] = z[0] * points[3 * i] + z[1] * points[3 * i + 1] + z[2] * points[3 * i + 2];
      low = Math.min(low, depth[i]); high = Math.max(high, depth[i]);
    }
    const key = (i) => Math.floor(((high - depth[i]) / (high - low || 1)) * 65535);
    for (let i = 0; i < n; i++) counts[key(i) + 1]++;
    for (let i = 0; i < 65536; i++) counts[i + 1] += counts[i];
    for (let i = 0; i < n; i++) order[counts[key(i)]++] = i;
  };
  const draw = () => {
    waiting = false;
    const side = Math.round(canvas.clientWidth * Math.min(2, devicePixelRatio || 1)) || 300;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const turn = turning();
    sort(turn[2]);
    gl.viewport(0, 0, side, side);
    gl.clearColor(1, 1, 1, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniformMatrix3fv(place("turn"), true, turn.flat());
    gl.uniform2f(place("size"), side, side);
    gl.uniform1f(place("factor"), view.size ?? 1);
    gl.uniform1f(place("focal"), (view.zoom * side) / 2 / TAN);
    gl.bufferData(gl.ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, n);
    canvas.dataset.drawn = String(n);
  };
  const soon = () => { if (gl && !waiting) { waiting = true; requestAnimationFrame(draw); } };
  const turnBy = (dx, dy) => {
    view.azimuth -= dx * 0.01;
    view.elevation = Math.max(-1.5, Math.min(1.5, view.elevation + dy * 0.01));
    onTurn();
  };
  const zoomBy = (factor) => { view.zoom = Math.max(0.3, Math.min(8, view.zoom * factor)); onTurn(); };
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) turnBy(event.movementX, event.movementY); });
  if (wheel) canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoomBy(Math.exp(-event.deltaY / 600)); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const factor = { "+": 1.1, "=": 1.1, "-": 1 / 1.1 }[event.key];
    if (factor && !event.ctrlKey && !event.metaKey) { event.preventDefault(); zoomBy(factor); }
    const step = { ArrowLeft: [12, 0], ArrowRight: [-12, 0], ArrowUp: [0, 12], ArrowDown: [0, -12] }[event.key];
    if (step) { event.preventDefault(); turnBy(...step); }
  });
  const resized = new ResizeObserver(() => soon());
  resized.observe(canvas);
  const close = () => {
    resized.disconnect();
    if (gl) gl.getExtension("WEBGL_lose_context")?.loseContext();
    gl = null;
  };
  return { canvas, load, soon, draw: () => gl && draw(), close };
};
