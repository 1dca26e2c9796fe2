// The layer of the map that stands still: the city, the zones, a scale. Drawn anew only when the view changes.

import { PARKS, PLACES, RIVERS, ROADS, WALLS } from "/dashboard/rome.js";

const RIVER_KM = 0.16; // wider than it is, so that it reads as a river
const RIVER_MIN_PX = 2.5;
const ROAD_PX = { 1: 3, 2: 1.5 };
const SCALE_KM = [0.2, 0.5, 1, 2, 5];
const SCALE_MAX_PX = 120;
const TILES_VEIL = { light: 0.4, dark: 0.72 }; // how much of the background lies over tiles: most are made for light pages
const SKETCH_OVER_TILES = 0.25;
const HATCH_PX = 8; // between the lines over a zone that nobody flies over

/** A smooth line through points [lat, lon]. */
function path(context, camera, points, isRing = false) {
  const at = points.map(([lat, lon]) => [camera.x(lon), camera.y(lat)]);
  if (isRing) at.push(at[0]);
  context.moveTo(...at[0]);
  for (let index = 1; index < at.length - 1; index += 1) {
    const [x, y] = at[index];
    const [nextX, nextY] = at[index + 1];
    context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  context.lineTo(...at.at(-1));
}

/**
 * @param {CanvasRenderingContext2D} context @param {import("/dashboard/camera.js").Camera} camera
 * @param {Record<string, string>} colour @param {string} font
 * @param {any} zones what GET /zones answered, or null @param {(zone: any) => string} zoneName
 * @param {import("/dashboard/tiles.js").Tiles} tiles @param {number} scale pixels of the screen per CSS pixel
 */
export function drawBase(context, camera, colour, font, zones, zoneName, tiles, scale) {
  context.fillStyle = colour["map-bg"];
  context.fillRect(0, 0, camera.width, camera.height);
  const isTiled = tiles.draw(context, camera, scale);
  if (isTiled) {
    // Drones and orders must stand out from any tiles, in either scheme.
    context.globalAlpha = matchMedia("(prefers-color-scheme: dark)").matches ? TILES_VEIL.dark : TILES_VEIL.light;
    context.fillRect(0, 0, camera.width, camera.height);
    context.globalAlpha = SKETCH_OVER_TILES;
  }
  const grow = Math.sqrt(camera.zoom);
  context.lineJoin = context.lineCap = "round";

  context.fillStyle = colour["map-park"];
  context.beginPath();
  for (const park of PARKS) path(context, camera, park, true);
  context.fill();

  for (const rank of [2, 1]) {
    context.strokeStyle = colour["map-road"];
    context.lineWidth = ROAD_PX[rank] * grow;
    context.beginPath();
    for (const road of ROADS) if (road.rank === rank) path(context, camera, road.points);
    context.stroke();
  }
  context.strokeStyle = colour["map-wall"];
  context.lineWidth = 1.5 * grow;
  context.setLineDash([1, 3.5 * grow]);
  context.beginPath();
  path(context, camera, WALLS);
  context.stroke();
  context.setLineDash([]);

  context.strokeStyle = colour["map-water"];
  for (const river of RIVERS) {
    context.lineWidth = Math.max(RIVER_MIN_PX, RIVER_KM * camera.perKm * river.width);
    context.beginPath();
    path(context, camera, river.points);
    context.stroke();
  }
  context.globalAlpha = 1;
  if (zones) {
    drawZones(context, camera, colour, font, zones, zoneName);
    drawNoFly(context, camera, colour, noFlyOf(zones));
  }
  if (!isTiled) drawPlaces(context, camera, colour, font);
  if (isTiled && tiles.by) drawBy(context, camera, colour, font, tiles.by);
  drawScale(context, camera, colour, font);
}

function drawZones(context, camera, colour, font, zones, zoneName) {
  const { lat_min, lat_max, lon_min, lon_max } = zones.bounds;
  const [left, right, top, bottom] = [camera.x(lon_min), camera.x(lon_max), camera.y(lat_max), camera.y(lat_min)];
  // Outside of what is served the map is dimmed.
  context.fillStyle = colour["map-out"];
  context.beginPath();
  context.rect(0, 0, camera.width, camera.height);
  context.rect(left, top, right - left, bottom - top);
  context.fill("evenodd");
  context.strokeStyle = colour["map-line"];
  context.lineWidth = 1;
  context.beginPath();
  for (const { bounds } of zones.zones) {
    context.rect(camera.x(bounds.lon_min), camera.y(bounds.lat_max), (bounds.lon_max - bounds.lon_min) * camera.kx, (bounds.lat_min - bounds.lat_max) * camera.ky);
  }
  context.stroke();
  if (zones.zones.length * 90 > (right - left) * 1.5) return; // names would cover each other
  context.font = `600 11px ${font}`;
  context.fillStyle = colour["map-label"];
  for (const zone of zones.zones) context.fillText(zoneName(zone), camera.x(zone.bounds.lon_min) + 8, camera.y(zone.bounds.lat_max) + 18);
}

/** The polygons that nobody flies over, of what GET /zones answered: each a list of corners. */
export const noFlyOf = (zones) => (zones?.no_fly ?? []).map(({ vertices }) => vertices);

function drawNoFly(context, camera, colour, polygons) {
  if (!polygons.length) return;
  context.save();
  context.beginPath();
  for (const corners of polygons) {
    for (const [index, { lat, lon }] of corners.entries()) {
      if (index) context.lineTo(camera.x(lon), camera.y(lat));
      else context.moveTo(camera.x(lon), camera.y(lat));
    }
    context.closePath();
  }
  context.strokeStyle = colour.failed;
  context.lineWidth = 1.5;
  context.stroke();
  context.clip();
  context.lineWidth = 1;
  context.beginPath();
  for (let x = -camera.height; x < camera.width; x += HATCH_PX) {
    context.moveTo(x, camera.height);
    context.lineTo(x + camera.height, 0);
  }
  context.stroke();
  context.restore();
}

function drawPlaces(context, camera, colour, font) {
  const isSmall = camera.width < 480;
  context.font = `italic 11px ${font}`;
  context.textAlign = "center";
  context.lineWidth = 3;
  context.strokeStyle = colour["map-bg"];
  context.fillStyle = colour["map-place"];
  for (const { name, at: [lat, lon], zoom } of PLACES) {
    if (camera.zoom < zoom || (isSmall && camera.zoom < zoom * 1.6)) continue;
    context.strokeText(name, camera.x(lon), camera.y(lat));
    context.fillText(name, camera.x(lon), camera.y(lat));
  }
  context.textAlign = "start";
}

/** Who made the tiles. */
function drawBy(context, camera, colour, font, by) {
  context.font = `11px ${font}`;
  context.textAlign = "right";
  context.lineWidth = 3;
  context.strokeStyle = colour["map-bg"];
  context.fillStyle = colour["map-label"];
  context.strokeText(by, camera.width - 14, camera.height - 36, camera.width - 90);
  context.fillText(by, camera.width - 14, camera.height - 36, camera.width - 90);
  context.textAlign = "start";
}

function drawScale(context, camera, colour, font) {
  const km = SCALE_KM.findLast((length) => length * camera.perKm <= SCALE_MAX_PX) ?? SCALE_KM[0];
  const right = camera.width - 14;
  const left = right - km * camera.perKm;
  const y = camera.height - 14;
  context.strokeStyle = context.fillStyle = colour["map-label"];
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(left, y - 4);
  context.lineTo(left, y);
  context.lineTo(right, y);
  context.lineTo(right, y - 4);
  context.stroke();
  context.font = `11px ${font}`;
  context.textAlign = "right";
  context.fillText(km < 1 ? `${km * 1000} m` : `${km} km`, right - 4, y - 5);
  context.textAlign = "start";
}
