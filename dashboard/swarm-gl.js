// Many drones in WebGL 2: one buffer a frame, one call for all trails and one for all pictures. Each drone is an instance of a
// quad; its picture lies in a texture that has all of them side by side.

import { STRIDE } from "/dashboard/swarm-pixels.js";

const COLUMNS = 8; // pictures in a row of the texture
const TRAIL_PX = 1.5;
const EMULATED = /swiftshader|llvmpipe|softpipe|software|basic render/i;
const BYTES = Float32Array.BYTES_PER_ELEMENT;

const VERTEX = `#version 300 es
in vec2 place;
in vec2 tail;
in float picture;
uniform vec2 size;
uniform float side;
uniform vec2 grid;
uniform bool isTrail;
out vec2 texel;
out float strength;

void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  vec2 cell = vec2(mod(picture, grid.x), floor(picture / grid.x));
  vec2 at;
  if (isTrail) {
    vec2 way = place - tail;
    vec2 across = normalize(vec2(-way.y, way.x) + vec2(1e-6)) * ${TRAIL_PX.toFixed(1)} * 0.5;
    at = mix(tail, place, corner.x) + across * (corner.y * 2.0 - 1.0);
    texel = (cell + 0.5) / grid;
    strength = corner.x * 0.45;
  } else {
    at = place + (corner - 0.5) * side;
    texel = (cell + corner) / grid;
    strength = 1.0;
  }
  gl_Position = vec4(at.x / size.x * 2.0 - 1.0, 1.0 - at.y / size.y * 2.0, 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec2 texel;
in float strength;
uniform sampler2D pictures;
out vec4 colour;

void main() {
  colour = texture(pictures, texel) * strength;
}`;

export class GlSwarm {
  /** On this canvas; null where there is no WebGL 2, or only one that a processor emulates (unless `isForced`). */
  static on(canvas, isForced) {
    if (!isForced && !isInHardware()) return null;
    const gl = canvas.getContext("webgl2", { antialias: false, depth: false });
    return gl && new GlSwarm(canvas, gl);
  }

  constructor(canvas, gl) {
    this.name = "webgl";
    this.canvas = canvas;
    this.gl = gl;
    this.capacity = 0;
    const program = link(gl);
    gl.useProgram(program);
    this.uniform = Object.fromEntries(["size", "side", "grid", "isTrail"].map((name) => [name, gl.getUniformLocation(program, name)]));
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    let offset = 0;
    for (const [name, wide] of [["place", 2], ["tail", 2], ["picture", 1]]) {
      const place = gl.getAttribLocation(program, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, wide, gl.FLOAT, false, STRIDE * BYTES, offset);
      gl.vertexAttribDivisor(place, 1);
      offset += wide * BYTES;
    }
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, true);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.resize(1, 1, 1);
  }

  resize(width, height, scale) {
    this.scale = scale;
    Object.assign(this.canvas, { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
    this.gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    this.gl.uniform2f(this.uniform.size, width, height);
  }

  setPictures(pictures, scale) {
    const { gl } = this;
    const side = pictures[0].width;
    const rows = Math.ceil(pictures.length / COLUMNS);
    const all = Object.assign(document.createElement("canvas"), { width: COLUMNS * side, height: rows * side });
    const context = all.getContext("2d");
    pictures.forEach((picture, index) => context.drawImage(picture, (index % COLUMNS) * side, Math.floor(index / COLUMNS) * side));
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, all);
    gl.uniform1f(this.uniform.side, side / scale);
    gl.uniform2f(this.uniform.grid, COLUMNS, rows);
  }

  /** @param {import("/dashboard/swarm.js").Frame} frame */
  draw({ data, count, hasTrails }) {
    const { gl } = this;
    if (data.length > this.capacity) {
      this.capacity = data.length;
      gl.bufferData(gl.ARRAY_BUFFER, data.byteLength, gl.DYNAMIC_DRAW);
    }
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, data, 0, count * STRIDE);
    gl.clear(gl.COLOR_BUFFER_BIT);
    for (const isTrail of hasTrails ? [1, 0] : [0]) {
      gl.uniform1i(this.uniform.isTrail, isTrail);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
    }
  }
}

/** Whether a GPU would draw. Asked on a canvas of its own: one that had WebGL draws nothing else. */
function isInHardware() {
  const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (!gl) return false;
  // Chromium gives SwiftShader all the same, a hundred times slower than pixels of our own.
  const names = gl.getExtension("WEBGL_debug_renderer_info");
  const name = String(gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !EMULATED.test(name);
}

/** The program of both shaders; throws what the driver says about them. */
function link(gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(`WebGL: ${gl.getProgramInfoLog(program)}`);
  return program;
}
