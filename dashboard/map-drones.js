// Drones in full detail, while few are in view: battery, heading, a trail that fades, the way that is left, its ETA, its name.

import { SPRITE_PX } from "/dashboard/sprites.js";
import { TRAIL } from "/dashboard/tracks.js";

const LABELS_MAX = 40;
const ETAS_MAX = 24;
const NARROW_PX = 480;
const TRAIL_BANDS = 5; // steps in which a trail fades

/** @typedef {import("/dashboard/map.js").LiveMap} LiveMap
 * @typedef {{drone: any, slot: number, x: number, y: number}} Entry */

/** @param {CanvasRenderingContext2D} context @param {LiveMap} map @param {Entry[]} visible */
export function drawFew(context, map, visible) {
  drawTrails(context, map, visible);
  if (map.showsOrders) drawRemaining(context, map, visible);
  drawHeadings(context, map, visible);
  const half = SPRITE_PX / 2;
  for (const { drone, x, y } of visible) context.drawImage(map.sprites.of(drone.type, drone.status, drone.battery), x - half, y - half, SPRITE_PX, SPRITE_PX);
  const chosen = visible.find(({ drone }) => drone.id === map.selected.drone);
  if (chosen) drawSelected(context, map, chosen);
  drawLabels(context, map, visible);
}

function drawTrails(context, map, visible) {
  context.lineCap = "butt"; // round ends would show where bands meet
  context.lineWidth = 2.5;
  for (const [status, group] of Map.groupBy(visible, ({ drone }) => drone.status)) {
    context.strokeStyle = map.colour[status] || map.colour.muted;
    for (let band = 0; band < TRAIL_BANDS; band += 1) {
      context.globalAlpha = (0.5 * (band + 1)) / TRAIL_BANDS;
      context.beginPath();
      for (const entry of group) trailBand(context, map, entry, band);
      context.stroke();
    }
  }
  context.globalAlpha = 1;
}

/** One band of one trail; the last ends at the drone. */
function trailBand(context, { camera, scene: { tracks } }, { slot, x, y }, band) {
  const length = tracks.trailLength[slot];
  if (length < 2) return;
  const from = Math.floor((length * band) / TRAIL_BANDS);
  const to = Math.floor((length * (band + 1)) / TRAIL_BANDS);
  const head = tracks.trailHead[slot];
  for (let index = from; index <= to && index < length; index += 1) {
    const place = slot * TRAIL + ((head + index) % TRAIL);
    const px = camera.x(tracks.trailLon[place]);
    const py = camera.y(tracks.trailLat[place]);
    if (index === from) context.moveTo(px, py);
    else context.lineTo(px, py);
  }
  if (band === TRAIL_BANDS - 1) context.lineTo(x, y);
}

/** The way that is left to a flying drone: to the pick-up dotted, to the destination whole. */
function drawRemaining(context, map, visible) {
  const { camera, scene, colour } = map;
  const flying = visible.flatMap((entry) => {
    const order = scene.open.get(entry.drone.current_delivery);
    return order && order.leg ? [{ ...entry, order, target: order.leg === "to_origin" ? order.origin : order.destination }] : [];
  });
  for (const leg of ["to_origin", "to_destination"]) {
    context.strokeStyle = colour.in_flight;
    context.globalAlpha = 0.75;
    context.lineWidth = 1.5;
    context.setLineDash(leg === "to_origin" ? [1, 5] : []);
    context.beginPath();
    for (const { order, target, x, y } of flying) {
      if (order.leg !== leg) continue;
      context.moveTo(x, y);
      context.lineTo(camera.x(target.lon), camera.y(target.lat));
    }
    context.stroke();
  }
  context.setLineDash([]);
  context.globalAlpha = 1;
  const now = scene.now();
  if ((flying.length > ETAS_MAX || camera.width < NARROW_PX) && camera.zoom < 2.5) return;
  for (const { order } of flying) drawEta(context, map, order, now);
}

function drawEta(context, map, order, now) {
  if (!Number.isFinite(order.delivery_eta)) return;
  const left = Math.max(0, Math.round(order.delivery_eta - now));
  const words = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  text(context, map, words, map.camera.x(order.destination.lon) + 8, map.camera.y(order.destination.lat) + 4, map.colour.in_flight, 500);
}

/** A small arrow outside of the ring, in the direction of flight. */
function drawHeadings(context, { colour, scene: { tracks } }, visible) {
  context.fillStyle = colour.busy;
  context.beginPath();
  for (const { drone, slot, x, y } of visible) {
    const heading = tracks.heading[slot];
    if (drone.status !== "busy" || Number.isNaN(heading)) continue;
    const [sin, cos] = [Math.sin(heading), -Math.cos(heading)];
    context.moveTo(x + 20 * sin, y + 20 * cos);
    context.lineTo(x + 13 * sin - 5 * cos, y + 13 * cos + 5 * sin);
    context.lineTo(x + 13 * sin + 5 * cos, y + 13 * cos - 5 * sin);
    context.closePath();
  }
  context.fill();
}

/** The one that was chosen, in full detail and ringed. @param {CanvasRenderingContext2D} context @param {LiveMap} map @param {Entry} entry */
export function drawSelected(context, map, { drone, x, y }) {
  const half = SPRITE_PX / 2;
  context.drawImage(map.sprites.of(drone.type, drone.status, drone.battery), x - half, y - half, SPRITE_PX, SPRITE_PX);
  context.strokeStyle = map.colour.accent;
  context.lineWidth = 2.5;
  context.beginPath();
  context.arc(x, y, half + 1.5, 0, 2 * Math.PI);
  context.stroke();
  text(context, map, drone.id, x + half + 6, y + 4, map.colour.text, 700);
}

function drawLabels(context, map, visible) {
  const named = visible.filter(({ drone }) => drone.status === "busy" && drone.id !== map.selected.drone);
  if (named.length > LABELS_MAX && map.camera.zoom < 3) return;
  for (const { drone, x, y } of named) text(context, map, drone.id.replace("drone-", ""), x + 15, y - 8, map.colour.text, 600);
}

function text(context, map, words, x, y, colour, weight) {
  context.font = `${weight} 11px ${map.font}`;
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.strokeStyle = map.colour["map-halo"];
  context.strokeText(words, x, y);
  context.fillStyle = colour;
  context.fillText(words, x, y);
}
