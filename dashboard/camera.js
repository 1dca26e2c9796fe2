// Which part of the world the map shows, and the hands that move it: mouse, wheel, fingers, keys.

const ZOOM_MAX = 40;
const KEY_PAN_PX = 80;
const KEY_ZOOM = 1.5;
const WHEEL_ZOOM = 0.0016; // per pixel of a wheel's turn
const CLICK_MAX_PX = 6; // a press that moves further is a drag
const PADDING_PX = 16;

export class Camera {
  constructor() {
    this.bounds = { lat_min: 41.8, lat_max: 41.98, lon_min: 12.37, lon_max: 12.6 };
    this.zoom = 1;
    this.width = this.height = 1;
    this.version = 0; // counts changes
    this.centre();
  }

  /** @param {{lat_min: number, lat_max: number, lon_min: number, lon_max: number}} bounds what is to be seen at zoom 1 */
  setBounds(bounds) {
    this.bounds = bounds;
    this.centre();
  }

  setSize(width, height) {
    this.width = width;
    this.height = height;
    this.update();
  }

  centre() {
    this.zoom = 1;
    this.lat = (this.bounds.lat_min + this.bounds.lat_max) / 2;
    this.lon = (this.bounds.lon_min + this.bounds.lon_max) / 2;
    this.update();
  }

  update() {
    const { lat_min, lat_max, lon_min, lon_max } = this.bounds;
    this.zoom = Math.min(ZOOM_MAX, Math.max(1, this.zoom));
    this.lat = Math.min(lat_max, Math.max(lat_min, this.lat));
    this.lon = Math.min(lon_max, Math.max(lon_min, this.lon));
    // A degree of longitude is shorter than one of latitude by the cosine of the latitude.
    const squeeze = Math.cos((((lat_min + lat_max) / 2) * Math.PI) / 180);
    const wide = (lon_max - lon_min) * squeeze;
    const fit = Math.min((this.width - 2 * PADDING_PX) / wide, (this.height - 2 * PADDING_PX) / (lat_max - lat_min));
    this.perDegree = Math.max(1, fit) * this.zoom;
    this.kx = this.perDegree * squeeze;
    this.ky = -this.perDegree;
    this.x0 = this.width / 2 - this.lon * this.kx;
    this.y0 = this.height / 2 - this.lat * this.ky;
    this.version += 1;
  }

  x(lon) {
    return lon * this.kx + this.x0;
  }

  y(lat) {
    return lat * this.ky + this.y0;
  }

  /** Pixels of a kilometre. */
  get perKm() {
    return this.perDegree / 111.195;
  }

  pan(dx, dy) {
    this.lon -= dx / this.kx;
    this.lat -= dy / this.ky;
    this.update();
  }

  /** What lies at (x, y) stays there. */
  zoomAt(factor, x = this.width / 2, y = this.height / 2) {
    const before = this.zoom;
    const lon = (x - this.x0) / this.kx;
    const lat = (y - this.y0) / this.ky;
    this.zoom *= factor;
    this.update();
    if (this.zoom === before) return;
    this.pan(x - this.x(lon), y - this.y(lat));
  }

  /** Moves towards a place; `part` 1 goes all the way. */
  approach(lat, lon, part) {
    this.lat += (lat - this.lat) * part;
    this.lon += (lon - this.lon) * part;
    this.update();
  }
}

/**
 * Lets people move the camera over `canvas`.
 * @param {HTMLCanvasElement} canvas @param {Camera} camera
 * @param {{onClick: (x: number, y: number) => void, onHand: () => void, onStep: (by: 1|-1) => void, onCharge: () => void}} hooks a click;
 *   the user moved the map; the next or the previous drone is wanted; the next charge point is
 */
export function handControl(canvas, camera, { onClick, onHand, onStep, onCharge }) {
  const fingers = new Map();
  let moved = 0;
  const change = (act) => {
    act();
    onHand();
    // A finger on a map that shows all scrolls the page; on one that is zoomed it moves the map.
    canvas.style.touchAction = camera.zoom > 1 ? "none" : "pan-y";
  };
  canvas.style.touchAction = "pan-y";

  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    canvas.setPointerCapture(event.pointerId);
    if (fingers.size === 1) moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    const to = { x: event.offsetX, y: event.offsetY };
    moved += Math.hypot(to.x - finger.x, to.y - finger.y);
    if (fingers.size === 2) {
      const other = [...fingers.entries()].find(([id]) => id !== event.pointerId)[1];
      const gap = (a) => Math.max(10, Math.hypot(a.x - other.x, a.y - other.y));
      change(() => {
        camera.zoomAt(gap(to) / gap(finger), (to.x + other.x) / 2, (to.y + other.y) / 2);
        camera.pan((to.x - finger.x) / 2, (to.y - finger.y) / 2);
      });
    } else if (moved > CLICK_MAX_PX) {
      change(() => camera.pan(to.x - finger.x, to.y - finger.y));
    }
    fingers.set(event.pointerId, to);
  });
  canvas.addEventListener("pointerup", (event) => {
    const wasOne = fingers.size === 1;
    fingers.delete(event.pointerId);
    if (wasOne && moved <= CLICK_MAX_PX) onClick(event.offsetX, event.offsetY);
  });
  canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("dblclick", (event) => change(() => camera.zoomAt(2, event.offsetX, event.offsetY)));
  canvas.addEventListener("wheel", (event) => {
    // A wheel over the map scrolls the page, unless the map can be moved or Ctrl says that it is meant.
    if (camera.zoom === 1 && event.deltaY > 0) return;
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? event.deltaY * 30 : event.deltaY;
    change(() => camera.zoomAt(Math.exp(-pixels * WHEEL_ZOOM), event.offsetX, event.offsetY));
  }, { passive: false });

  const keys = {
    ArrowLeft: () => camera.pan(KEY_PAN_PX, 0),
    ArrowRight: () => camera.pan(-KEY_PAN_PX, 0),
    ArrowUp: () => camera.pan(0, KEY_PAN_PX),
    ArrowDown: () => camera.pan(0, -KEY_PAN_PX),
    "+": () => camera.zoomAt(KEY_ZOOM),
    "=": () => camera.zoomAt(KEY_ZOOM),
    "-": () => camera.zoomAt(1 / KEY_ZOOM),
    0: () => camera.centre(),
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n" || event.key === "p") onStep(event.key === "n" ? 1 : -1);
    else if (event.key === "c") onCharge();
    else if (keys[event.key]) change(keys[event.key]);
    else return;
    event.preventDefault();
  });
}
