// Many drones at once: a small picture and a short trail of each, in a layer of its own.
//
// Two ways to draw them, with one interface: WebGL where the machine has it in hardware (thousands cost next to nothing), and else
// pixels set by ourselves, which beats a thousand calls of drawImage by far where Chromium has no GPU to hand them to.

import { GlSwarm } from "/dashboard/swarm-gl.js";
import { PixelSwarm } from "/dashboard/swarm-pixels.js";

/** @typedef {object} Frame
 * @property {Float32Array} data STRIDE numbers per drone (see swarm-pixels.js), in the order in which they are drawn
 * @property {number} count drones in it
 * @property {boolean} hasTrails whether trails are drawn */

export class Swarm {
  /** @param {HTMLCanvasElement} canvas @param {"auto"|"webgl"|"pixels"} wish `auto`: WebGL unless software emulates it
   *  @param {() => void} onLost it goes on in another way, and is to be told its size and pictures again */
  constructor(canvas, wish, onLost) {
    this.onLost = onLost;
    this.canvas = canvas;
    this.wish = wish;
    this.begin();
  }

  begin() {
    this.drawer = null;
    if (this.wish !== "pixels") {
      try {
        this.drawer = GlSwarm.on(this.canvas, this.wish === "webgl");
      } catch (error) {
        console.info(error.message);
        this.replaceCanvas();
      }
      // A GPU that has gone (a driver was reset, the laptop slept) may not come back.
      this.canvas.addEventListener("webglcontextlost", () => {
        this.replaceCanvas();
        this.wish = "pixels";
        this.begin();
        this.onLost();
      }, { once: true });
    }
    this.drawer ??= new PixelSwarm(this.canvas);
    this.canvas.dataset.renderer = this.drawer.name;
  }

  /** A canvas that once had WebGL draws nothing else. */
  replaceCanvas() {
    const canvas = /** @type {HTMLCanvasElement} */ (this.canvas.cloneNode());
    this.canvas.replaceWith(canvas);
    this.canvas = canvas;
  }

  /** @param {number} width @param {number} height CSS pixels @param {number} scale pixels of the screen per CSS pixel */
  resize(width, height, scale) {
    this.drawer.resize(width, height, scale);
  }

  /** Pixels of the layer per CSS pixel: what pictures are to be made for. */
  get scale() {
    return this.drawer.scale;
  }

  /** @param {HTMLCanvasElement[]} pictures all of one size, made for this scale */
  setPictures(pictures) {
    this.drawer.setPictures(pictures, this.scale);
  }

  /** @param {Frame} frame */
  draw(frame) {
    this.drawer.draw(frame);
  }

  /** Shown, or away. */
  set shown(is) {
    if (this.canvas.hidden === is) this.canvas.hidden = !is;
  }
}
