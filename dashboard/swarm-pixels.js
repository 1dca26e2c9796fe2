// Many drones, set pixel by pixel into a picture that is put onto the canvas once a frame. The cost is that of the picture, and
// hardly depends on how many drones are in it.

/** Numbers per drone: x, y, x and y of its trail's end (CSS pixels), index of its picture. */
export const STRIDE = 5;

const PIXELS_MAX = 2.5e6; // a larger map gets fewer pixels per CSS pixel
const OPAQUE = 0xff000000;
const TRAIL_ALPHA = 110; // at the drone; it fades to nothing

export class PixelSwarm {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.name = "pixels";
    this.canvas = canvas;
    // Kept in memory: what is written by this program every frame would only travel to a GPU and back.
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.pictures = [];
    this.tones = new Uint32Array(0);
    this.side = 0;
    this.resize(1, 1, 1);
  }

  resize(width, height, scale) {
    this.scale = Math.min(scale, Math.sqrt(PIXELS_MAX / (width * height)));
    const [wide, high] = [Math.max(1, Math.round(width * this.scale)), Math.max(1, Math.round(height * this.scale))];
    Object.assign(this.canvas, { width: wide, height: high });
    this.image = this.context.createImageData(wide, high);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.wide = wide;
    this.high = high;
  }

  setPictures(pictures) {
    this.side = pictures[0].width;
    this.pictures = pictures.map((picture) => {
      const { data } = picture.getContext("2d").getImageData(0, 0, this.side, this.side);
      return trimmed(new Uint32Array(data.buffer), this.side);
    });
    const middle = (this.side >> 1) * this.side + (this.side >> 1);
    this.tones = Uint32Array.from(this.pictures, ({ pixels }) => pixels[middle] & 0xffffff);
  }

  /** @param {import("/dashboard/swarm.js").Frame} frame */
  draw({ data, count, hasTrails }) {
    this.pixels.fill(0);
    if (hasTrails) {
      for (let at = 0; at < count * STRIDE; at += STRIDE) {
        if (data[at] !== data[at + 2] || data[at + 1] !== data[at + 3]) this.line(data, at);
      }
    }
    for (let at = 0; at < count * STRIDE; at += STRIDE) this.picture(data[at], data[at + 1], this.pictures[data[at + 4]]);
    this.context.putImageData(this.image, 0, 0);
  }

  /** A line of single pixels from a drone to where its trail ends. */
  line(data, at) {
    const { pixels, wide, high, scale } = this;
    const [x, y] = [data[at] * scale, data[at + 1] * scale];
    const [dx, dy] = [data[at + 2] * scale - x, data[at + 3] * scale - y];
    const steps = Math.ceil(Math.max(Math.abs(dx), Math.abs(dy)));
    const tone = this.tones[data[at + 4]];
    for (let step = 0; step < steps; step += 1) {
      const part = step / steps;
      const px = (x + dx * part) | 0;
      const py = (y + dy * part) | 0;
      if (px >= 0 && py >= 0 && px < wide && py < high) pixels[py * wide + px] = tone | ((TRAIL_ALPHA * (1 - part)) << 24);
    }
  }

  /** One picture with its middle there; what sticks out is cut off. */
  picture(x, y, { pixels: from, begins, ends }) {
    const { pixels, wide, high, side, scale } = this;
    const left = Math.round(x * scale - side / 2);
    const top = Math.round(y * scale - side / 2);
    const bottom = Math.min(side, high - top);
    for (let row = Math.max(0, -top); row < bottom; row += 1) {
      const end = Math.min(ends[row], wide - left);
      const to = (top + row) * wide + left;
      for (let column = Math.max(begins[row], -left); column < end; column += 1) {
        const over = from[row * side + column];
        // A soft edge upon another drone: the stronger half of it covers, which nobody sees, and mixing colours would cost the most of all.
        if (pixels[to + column] === 0) pixels[to + column] = over;
        else if (over >>> 31) pixels[to + column] = (over | OPAQUE) >>> 0;
      }
    }
  }
}

/** A picture with where each row of it begins and ends to be seen. @param {Uint32Array} pixels @param {number} side */
function trimmed(pixels, side) {
  const begins = new Int32Array(side);
  const ends = new Int32Array(side);
  for (let row = 0; row < side; row += 1) {
    const seen = [...pixels.subarray(row * side, (row + 1) * side)].map((pixel) => pixel >>> 24 > 0);
    begins[row] = Math.max(0, seen.indexOf(true));
    ends[row] = seen.lastIndexOf(true) + 1;
  }
  return { pixels, begins, ends };
}
