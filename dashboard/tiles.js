// Raster tiles below the sketch, where the gateway is told of a server (TILE_URL): squares of 256 pixels in Web Mercator.
//
// The map itself has degrees at equal distances, so each tile is stretched to where its corners are; over a city that is a pixel or two.

const TILE_PX = 256;
const ZOOM_MAX = 19;
const IN_VIEW_MAX = 120; // more are not asked for: a wider zoom is taken
const KEPT_MAX = 300;
const AGAIN_MS = 30_000; // a tile that did not come is asked for again after this long

/** What index.html was told. */
const told = () => document.querySelector("meta[name=tiles]");

/** Degrees north of a tile's upper edge. */
const latOf = (row, count) => (Math.atan(Math.sinh(Math.PI * (1 - (2 * row) / count))) * 180) / Math.PI;
/** The row of tiles in which a latitude lies, with a fraction. */
const rowOf = (lat, count) => ((1 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / Math.PI) / 2) * count;

export class Tiles {
  /** @param {() => void} onTile one more can be drawn */
  constructor(onTile) {
    this.onTile = onTile;
    this.template = told()?.content ?? "";
    this.by = told()?.dataset.by ?? "";
    /** @type {Map<string, {image: HTMLImageElement, state: "asked"|"here"|"failed", at: number}>} */
    this.tiles = new Map();
  }

  /** Draws those that are there and asks for the others. True when there is any. @param {number} scale pixels of the screen per CSS pixel */
  draw(context, camera, scale) {
    if (!this.template) return false;
    const west = -camera.x0 / camera.kx;
    const east = (camera.width - camera.x0) / camera.kx;
    const north = -camera.y0 / camera.ky;
    const south = (camera.height - camera.y0) / camera.ky;
    let zoom = Math.min(ZOOM_MAX, Math.max(0, Math.round(Math.log2((360 * camera.kx * scale) / TILE_PX))));
    let range;
    do {
      const count = 2 ** zoom;
      const column = (lon) => Math.min(count - 1, Math.max(0, Math.floor(((lon + 180) / 360) * count)));
      const row = (lat) => Math.min(count - 1, Math.max(0, Math.floor(rowOf(lat, count))));
      range = { count, left: column(west), right: column(east), top: row(north), bottom: row(south) };
    } while ((range.right - range.left + 1) * (range.bottom - range.top + 1) > IN_VIEW_MAX && zoom-- > 0);
    let drawn = 0;
    for (let row = range.top; row <= range.bottom; row += 1) {
      for (let column = range.left; column <= range.right; column += 1) drawn += this.drawOne(context, camera, zoom, column, row, range.count);
    }
    return drawn > 0;
  }

  drawOne(context, camera, zoom, column, row, count) {
    const tile = this.tile(zoom, column, row);
    if (tile.state !== "here") return 0;
    const [left, right] = [column, column + 1].map((edge) => camera.x((edge / count) * 360 - 180));
    const [top, bottom] = [row, row + 1].map((edge) => camera.y(latOf(edge, count)));
    context.drawImage(tile.image, left, top, right - left + 0.5, bottom - top + 0.5); // half a pixel over: no seams
    return 1;
  }

  tile(zoom, column, row) {
    const key = `${zoom}/${column}/${row}`;
    const known = this.tiles.get(key);
    this.tiles.delete(key); // and put back as the newest
    const isDue = !known || (known.state === "failed" && performance.now() - known.at > AGAIN_MS);
    const tile = isDue ? this.ask(zoom, column, row) : known;
    this.tiles.set(key, tile);
    if (this.tiles.size > KEPT_MAX) this.tiles.delete(this.tiles.keys().next().value);
    return tile;
  }

  ask(zoom, column, row) {
    const image = new Image();
    const tile = { image, state: "asked", at: performance.now() };
    // Tile servers want to know which site asks; they get its origin and nothing else.
    image.referrerPolicy = "origin";
    image.onload = () => {
      tile.state = "here";
      this.onTile();
    };
    image.onerror = () => { tile.state = "failed"; };
    image.src = this.template.replace("{z}", String(zoom)).replace("{x}", String(column)).replace("{y}", String(row));
    return tile;
  }
}
