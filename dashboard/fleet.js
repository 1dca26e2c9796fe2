// Where the drones are right now: keeps a few samples per drone and interpolates between them.
//
// Positions are drawn DELAY_MS late, so that there nearly always is a sample on either side and movement is smooth, not
// guessed.

const DELAY_MS = 900;
const SAMPLES_MAX = 8;
const TRAIL_MAX = 80;
const TRAIL_MIN_DEG = 0.0005; // shorter steps would only fill the trail with one place
const JUMP_DEG = 0.05; // a drone that moved this far between samples did not fly there on this page: do not sweep across the map

export class Fleet {
  constructor() {
    this.tracks = new Map();
  }

  /// Takes a new list of drones as it arrived at `now` (milliseconds of `performance.now()`).
  update(drones, now) {
    const seen = new Set();
    for (const drone of drones) {
      if (!drone.pos || !Number.isFinite(drone.pos.lat) || !Number.isFinite(drone.pos.lon)) continue;
      seen.add(drone.id);
      let track = this.tracks.get(drone.id);
      if (!track) {
        track = { drone, samples: [], trail: [] };
        this.tracks.set(drone.id, track);
      }
      track.drone = drone;
      const last = track.samples.at(-1);
      if (last && Math.max(Math.abs(last.lat - drone.pos.lat), Math.abs(last.lon - drone.pos.lon)) > JUMP_DEG) {
        track.samples.length = 0;
        track.trail.length = 0;
      }
      track.samples.push({ at: now, lat: drone.pos.lat, lon: drone.pos.lon });
      if (track.samples.length > SAMPLES_MAX) track.samples.shift();
    }
    for (const id of this.tracks.keys()) if (!seen.has(id)) this.tracks.delete(id);
  }

  /// Every drone with the place to draw it at and its trail, at `now`.
  at(now) {
    const out = [];
    for (const track of this.tracks.values()) {
      const place = interpolate(track.samples, now - DELAY_MS);
      const end = track.trail.at(-1);
      if (!end || Math.abs(end.lat - place.lat) + Math.abs(end.lon - place.lon) > TRAIL_MIN_DEG) {
        track.trail.push(place);
        if (track.trail.length > TRAIL_MAX) track.trail.shift();
      } else if (track.drone.status !== "busy" && track.trail.length > 1) {
        track.trail.shift(); // a drone that stands lets its trail fade
      }
      out.push({ drone: track.drone, place, trail: track.trail });
    }
    return out;
  }
}

function interpolate(samples, at) {
  let before = samples[0];
  for (const sample of samples) {
    if (sample.at > at) {
      const span = sample.at - before.at;
      const part = span > 0 ? Math.max(0, (at - before.at) / span) : 1;
      return { lat: before.lat + (sample.lat - before.lat) * part, lon: before.lon + (sample.lon - before.lon) * part };
    }
    before = sample;
  }
  return { lat: before.lat, lon: before.lon };
}
