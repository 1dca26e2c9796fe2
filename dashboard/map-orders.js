// The layer of the map that changes a few times a second: charge points, orders that wait, where parcels go.

import { AT_CHARGE_DEG } from "/dashboard/map.js";

export const CHARGE_PX = 10; // radius of a charge point's sign
const LINES_MAX = 150; // more lines than this hide the city

/** @typedef {import("/dashboard/map.js").LiveMap} LiveMap */

/** @param {CanvasRenderingContext2D} context @param {LiveMap} map */
export function drawOrders(context, map) {
  if (map.zones) for (const point of chargePoints(map.zones, map.scene.drones)) drawCharge(context, map, point);
  if (!map.showsOrders) return;
  const { camera, colour, scene } = map;
  const visible = [];
  const { width, height } = camera;
  for (const order of scene.open.values()) {
    const x = camera.x(order.origin.lon);
    const y = camera.y(order.origin.lat);
    const toX = camera.x(order.destination.lon);
    const toY = camera.y(order.destination.lat);
    if (Math.max(x, toX) < 0 || Math.min(x, toX) > width || Math.max(y, toY) < 0 || Math.min(y, toY) > height) continue;
    visible.push({ order, x, y, toX, toY });
  }
  const many = visible.length > LINES_MAX;
  drawWays(context, map, visible, many);
  const size = many ? 2.5 : 4;
  for (const tone of many ? ["pending"] : ["pending", "in_flight"]) {
    const isPending = tone === "pending";
    context.fillStyle = colour["map-halo"];
    context.strokeStyle = colour[tone];
    context.lineWidth = many ? 1.25 : 2;
    context.beginPath();
    for (const { order, x, y } of visible) {
      if (isPending !== (order.status === "pending") || order.leg === "to_destination") continue;
      context.moveTo(x + size, y);
      context.arc(x, y, size, 0, 2 * Math.PI);
    }
    context.fill();
    context.stroke();
    if (isPending) continue;
    context.fillStyle = colour[tone];
    for (const { order, toX, toY } of visible) if (order.status !== "pending") context.fillRect(toX - size + 0.5, toY - size + 0.5, size * 2 - 1, size * 2 - 1);
  }
}

/** Lines from origins to destinations: all while they are few, the selected one always. */
function drawWays(context, { colour, selected }, visible, many) {
  const line = (dash, alpha, width, tone, chosen) => {
    context.setLineDash(dash);
    context.globalAlpha = alpha;
    context.lineWidth = width;
    context.strokeStyle = colour[tone];
    context.beginPath();
    for (const way of visible) {
      if (!chosen(way.order)) continue;
      context.moveTo(way.x, way.y);
      context.lineTo(way.toX, way.toY);
    }
    context.stroke();
  };
  if (!many) {
    line([], 0.16, 1, "pending", (order) => order.status === "pending");
    line([3, 5], 0.4, 1, "in_flight", (order) => order.status !== "pending" && order.leg !== "to_destination");
  }
  line([], 0.9, 2.5, "accent", (order) => order.id === selected.order);
  context.setLineDash([]);
  context.globalAlpha = 1;
}

/**
 * Every charge point with the drones that charge there, those that wait there for a slot (in the order of their turn), and those that
 * are on their way to it.
 * @param {any} zones what GET /zones answered @param {Map<string, any>} drones
 */
export function chargePoints(zones, drones) {
  const points = zones.zones.map((zone) => ({ zone, charge: zone.charge, here: [], waiting: [], coming: [] }));
  const far = ({ charge: { lat, lon } }, pos) => (lat - pos.lat) ** 2 + ((lon - pos.lon) * 0.744) ** 2;
  for (const drone of drones.values()) {
    const { status, at_charge, pos, charge_at, charge_queue } = drone;
    if ((status !== "charging" && status !== "retiring") || !pos) continue;
    const target = at_charge ? pos : (charge_at ?? pos);
    let best = points[0];
    for (const point of points) if (far(point, target) < far(best, target)) best = point;
    if (!best) break;
    if (!at_charge) best.coming.push(drone);
    else if (Math.abs(pos.lat - best.charge.lat) < AT_CHARGE_DEG && Math.abs(pos.lon - best.charge.lon) < AT_CHARGE_DEG) {
      (charge_queue > 0 ? best.waiting : best.here).push(drone);
    }
  }
  for (const { waiting } of points) waiting.sort((a, b) => a.charge_queue - b.charge_queue);
  return points;
}

/** The sign of a charge point, and in figures how many charge, wait (‖) and come (+). */
function drawCharge(context, { colour, camera, font, selected }, { zone, charge, here, waiting, coming }) {
  const x = camera.x(charge.lon);
  const y = camera.y(charge.lat);
  context.fillStyle = colour["map-halo"];
  context.strokeStyle = selected.charge === zone.name ? colour.accent : colour.charging;
  context.lineWidth = selected.charge === zone.name ? 3 : 1.5;
  context.beginPath();
  context.arc(x, y, CHARGE_PX, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
  context.fillStyle = colour.charging;
  context.beginPath();
  for (const [dx, dy] of [[1, -6.5], [-4, 1.5], [-0.4, 1.5], [-1, 6.5], [4, -1.5], [0.4, -1.5]]) context.lineTo(x + dx, y + dy);
  context.fill();
  const parts = [[String(here.length), colour.charging], [`‖${waiting.length}`, colour.failed], [`+${coming.length}`, colour["map-label"]]];
  const said = parts.filter((_, index) => [here, waiting, coming][index].length || (index === 0 && waiting.length + coming.length));
  if (!said.length) return;
  context.font = `600 11px ${font}`;
  const widths = said.map(([words]) => context.measureText(words).width);
  const width = widths.reduce((sum, wide) => sum + wide + 4, 6);
  context.fillStyle = colour["map-halo"];
  context.beginPath();
  context.roundRect(x - width / 2, y + 12, width, 15, 7);
  context.fill();
  let left = x - width / 2 + 5;
  said.forEach(([words, tone], index) => {
    context.fillStyle = tone;
    context.fillText(words, left, y + 23);
    left += widths[index] + 4;
  });
}
