// Where the drones are: a few samples of each, and places in between by the server's time.
//
// Drones have slots in typed arrays, so that ten thousand of them cost little memory and no garbage per frame. Positions are
// drawn DELAY_SEC late: then there nearly always is a sample on either side, and movement is smooth and not guessed.

export const DELAY_SEC = 0.6;
export const TRAIL = 40; // places in a trail
const SAMPLES = 8;
const HOLD_SEC = 1; // after a longer pause a drone has stood, and not crept
const STEP_SEC = 0.3; // then it began to move this long before the sample that shows it
const TRAIL_MIN_DEG = 0.0005; // shorter steps would only fill the trail with one place
const JUMP_DEG = 0.05; // a drone that moved this far between samples did not fly there on this page: do not sweep across the map
const FADE_SEC = 0.12; // a drone that stands loses a place of its trail this often
const FIRST_CAPACITY = 64;

/** The server's clock as this page sees it: the fastest of the last messages shows it best. */
export class ServerClock {
  constructor() {
    /** @type {{offset: number, seenMs: number}[]} */
    this.samples = [];
    this.offset = null;
  }

  /** @param {number} atSec the server's time in a message that has just arrived */
  note(atSec) {
    const seenMs = performance.now();
    this.samples.push({ offset: atSec - seenMs / 1000, seenMs });
    while (this.samples.length > 100 || this.samples[0].seenMs < seenMs - 10_000) this.samples.shift();
    this.offset = Math.max(...this.samples.map((sample) => sample.offset));
  }

  /** Unix seconds; this machine's clock until the server was heard. */
  now() {
    return this.offset === null ? Date.now() / 1000 : performance.now() / 1000 + this.offset;
  }
}

export class Tracks {
  constructor() {
    /** @type {Map<string, number>} */
    this.slots = new Map();
    this.free = [];
    this.capacity = 0;
    this.grow(FIRST_CAPACITY);
  }

  grow(capacity) {
    const wider = (Kind, old, width) => {
      const next = new Kind(capacity * width);
      if (old) next.set(old);
      return next;
    };
    for (let slot = capacity - 1; slot >= this.capacity; slot -= 1) this.free.push(slot);
    this.at = wider(Float64Array, this.at, SAMPLES);
    this.sampleLat = wider(Float64Array, this.sampleLat, SAMPLES);
    this.sampleLon = wider(Float64Array, this.sampleLon, SAMPLES);
    this.samples = wider(Uint8Array, this.samples, 1);
    this.lat = wider(Float64Array, this.lat, 1);
    this.lon = wider(Float64Array, this.lon, 1);
    this.heading = wider(Float32Array, this.heading, 1);
    this.trailLat = wider(Float32Array, this.trailLat, TRAIL);
    this.trailLon = wider(Float32Array, this.trailLon, TRAIL);
    this.trailHead = wider(Uint8Array, this.trailHead, 1);
    this.trailLength = wider(Uint8Array, this.trailLength, 1);
    this.trailAt = wider(Float64Array, this.trailAt, 1);
    this.capacity = capacity;
  }

  /** The drone is there at that time (Unix seconds). Returns its slot. */
  put(id, lat, lon, at) {
    let slot = this.slots.get(id);
    if (slot === undefined) {
      if (!this.free.length) this.grow(this.capacity * 2);
      slot = this.free.pop();
      this.slots.set(id, slot);
      this.samples[slot] = 0;
      this.trailLength[slot] = 0;
      this.heading[slot] = NaN;
      this.lat[slot] = lat;
      this.lon[slot] = lon;
    }
    const last = slot * SAMPLES + this.samples[slot] - 1;
    if (this.samples[slot]) {
      if (at <= this.at[last]) return slot;
      if (Math.max(Math.abs(this.sampleLat[last] - lat), Math.abs(this.sampleLon[last] - lon)) > JUMP_DEG) {
        this.samples[slot] = 0;
        this.trailLength[slot] = 0;
      } else if (at - this.at[last] > HOLD_SEC) {
        this.push(slot, this.sampleLat[last], this.sampleLon[last], at - STEP_SEC);
      }
    }
    this.push(slot, lat, lon, at);
    return slot;
  }

  push(slot, lat, lon, at) {
    const base = slot * SAMPLES;
    if (this.samples[slot] === SAMPLES) {
      for (const samples of [this.at, this.sampleLat, this.sampleLon]) samples.copyWithin(base, base + 1, base + SAMPLES);
      this.samples[slot] -= 1;
    }
    const place = base + this.samples[slot];
    this.at[place] = at;
    this.sampleLat[place] = lat;
    this.sampleLon[place] = lon;
    this.samples[slot] += 1;
  }

  remove(id) {
    const slot = this.slots.get(id);
    if (slot === undefined) return;
    this.slots.delete(id);
    this.free.push(slot);
  }

  clear() {
    for (const id of [...this.slots.keys()]) this.remove(id);
  }

  /** Moves every drone to where it was at `now` minus DELAY_SEC. True when one of them moved. */
  advance(now) {
    const time = now - DELAY_SEC;
    let moved = false;
    for (const slot of this.slots.values()) {
      const first = slot * SAMPLES;
      let after = first + this.samples[slot] - 1;
      while (after > first && this.at[after - 1] > time) after -= 1;
      const before = Math.max(first, after - 1);
      const span = this.at[after] - this.at[before];
      const part = span > 0 ? Math.min(1, Math.max(0, (time - this.at[before]) / span)) : 1;
      const lat = this.sampleLat[before] + (this.sampleLat[after] - this.sampleLat[before]) * part;
      const lon = this.sampleLon[before] + (this.sampleLon[after] - this.sampleLon[before]) * part;
      const north = lat - this.lat[slot];
      const east = (lon - this.lon[slot]) * 0.744; // a degree of longitude is shorter in Rome: cos 41.9°
      if (north || east) {
        moved = true;
        if (Math.abs(north) + Math.abs(east) > 1e-6) this.heading[slot] = Math.atan2(east, north);
        this.lat[slot] = lat;
        this.lon[slot] = lon;
      }
      if (this.trail(slot, lat, lon, now)) moved = true;
    }
    return moved;
  }

  trail(slot, lat, lon, now) {
    const length = this.trailLength[slot];
    const base = slot * TRAIL;
    const newest = base + ((this.trailHead[slot] + length - 1) % TRAIL);
    if (!length || Math.abs(this.trailLat[newest] - lat) + Math.abs(this.trailLon[newest] - lon) > TRAIL_MIN_DEG) {
      const place = (this.trailHead[slot] + length) % TRAIL;
      this.trailLat[base + place] = lat;
      this.trailLon[base + place] = lon;
      this.trailAt[slot] = now;
      if (length < TRAIL) this.trailLength[slot] += 1;
      else this.trailHead[slot] = (this.trailHead[slot] + 1) % TRAIL;
      return true;
    }
    if (length > 1 && now - this.trailAt[slot] > 1.5 + FADE_SEC) {
      this.trailHead[slot] = (this.trailHead[slot] + 1) % TRAIL;
      this.trailLength[slot] -= 1;
      this.trailAt[slot] += FADE_SEC;
      return true;
    }
    return false;
  }
}
