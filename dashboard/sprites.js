// Pictures of drones, drawn once each and then copied. A drone's shape is its type, its colour its status, the ring around it
// its battery: nothing is told by colour alone.

export const SPRITE_PX = 34;
const SHAPE_PX = 6.5;
const RING_PX = 11;
const LOW_BATTERY_PCT = 30;
const BATTERY_STEPS = 20;
const CORNERS = { light: 3, medium: 4, heavy: 6 };
const STATUSES = ["idle", "busy", "charging", "retiring", "inactive", "lost", ""]; // the last: one that is not known
const TYPES = [...Object.keys(CORNERS), ""];

function shape(context, type, x, y, radius) {
  const corners = CORNERS[type];
  context.beginPath();
  if (!corners) {
    context.arc(x, y, radius, 0, 2 * Math.PI);
    return;
  }
  const turn = corners === 6 ? 0 : -Math.PI / 2;
  for (let index = 0; index < corners; index += 1) {
    const angle = turn + (index / corners) * 2 * Math.PI;
    context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  context.closePath();
}

export class Sprites {
  /** @param {Record<string, string>} colour @param {number} scale pixels of the screen per CSS pixel */
  constructor(colour, scale) {
    this.colour = colour;
    this.scale = scale;
    this.pictures = new Map();
  }

  /** The picture of such a drone, SPRITE_PX wide. */
  of(type, status, battery) {
    const step = Math.ceil((Math.max(0, Math.min(100, battery || 0)) / 100) * BATTERY_STEPS);
    const key = `${type} ${status} ${step}`;
    let picture = this.pictures.get(key);
    if (!picture) {
      picture = blank(SPRITE_PX, this.scale);
      this.drawWhole(picture.getContext("2d"), type, status, this.colour[status] || this.colour.muted, step / BATTERY_STEPS);
      this.pictures.set(key, picture);
    }
    return picture;
  }

  drawWhole(context, type, status, tone, charge) {
    const middle = SPRITE_PX / 2;
    const circle = (radius) => {
      context.beginPath();
      context.arc(middle, middle, radius, 0, 2 * Math.PI);
    };
    // The halo hides what is below, also below a faint drone.
    context.fillStyle = this.colour["map-halo"];
    circle(RING_PX + 2);
    context.fill();
    context.globalAlpha = status === "inactive" || status === "lost" ? 0.6 : 1;
    context.lineWidth = 2.5;
    context.strokeStyle = this.colour["map-line"];
    circle(RING_PX);
    context.stroke();
    context.strokeStyle = charge * 100 <= LOW_BATTERY_PCT ? this.colour.failed : tone;
    context.lineCap = "round";
    context.beginPath();
    context.arc(middle, middle, RING_PX, -Math.PI / 2, -Math.PI / 2 + charge * 2 * Math.PI);
    context.stroke();
    context.fillStyle = tone;
    shape(context, type, middle, middle, SHAPE_PX);
    context.fill();
  }
}

/** An empty picture that many CSS pixels wide. */
function blank(wide, scale) {
  const picture = document.createElement("canvas");
  picture.width = picture.height = Math.max(1, Math.round(wide * scale));
  picture.getContext("2d").scale(picture.width / wide, picture.width / wide);
  return picture;
}

/** Pictures of drones among many, without battery: each type in each state, in the order of smallCode. */
export function smallPictures(colour, wide, scale) {
  return TYPES.flatMap((type) => STATUSES.map((status) => {
    const picture = blank(wide, scale);
    const context = picture.getContext("2d");
    context.lineWidth = wide / 7;
    context.strokeStyle = colour["map-halo"];
    shape(context, type, wide / 2, wide / 2, wide / 3);
    context.stroke();
    context.fillStyle = colour[status] || colour.muted;
    context.fill();
    return picture;
  }));
}

/** Which of the small pictures is such a drone's. */
export function smallCode(type, status) {
  const place = (list, name) => (list.indexOf(name) + list.length) % list.length;
  return place(TYPES, type) * STATUSES.length + place(STATUSES, status);
}
