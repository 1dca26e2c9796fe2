// The words of the page, in English and Italian. The language is that of the browser, or the one chosen on the page.
//
// Markup names its words: `data-i18n="key"` for the text, `data-i18n-label="key"` for what is read aloud. Ids, numbers with units
// and what comes from the server stay as they are.

const KEPT_AS = "dronedispatch-language";
export const LANGUAGES = ["en", "it"];

/** @type {Record<string, [string, string]>} */
const WORDS = {
  "tagline": ["drone deliveries over Rome", "consegne con droni su Roma"],
  "views": ["Views", "Viste"],
  "view.live": ["Live", "Dal vivo"],
  "view.cluster": ["Cluster", "Cluster"],
  "skip": ["Skip to the orders", "Vai agli ordini"],
  "language": ["Language", "Lingua"],
  "counters": ["Counters", "Contatori"],
  "waiting": ["Waiting", "In attesa"],
  "flying": ["Flying", "In volo"],
  "delivered.count": ["Delivered", "Consegnati"],
  "also": ["{failed} failed, {cancelled} cancelled", "{failed} falliti, {cancelled} annullati"],
  "link.connecting": ["connecting", "connessione"],
  "link.live": ["live", "in diretta"],
  "link.late": ["reconnecting", "riconnessione"],
  "link.offline": ["no answer, retrying", "nessuna risposta, riprovo"],
  "link.old": ["data {age} old", "dati di {age} fa"],
  "back.whole": ["Connected again after {age}; nothing was missed.", "Di nuovo connessi dopo {age}; non manca nulla."],
  "back.anew": ["Connected again after {age}; everything read anew.", "Di nuovo connessi dopo {age}; tutto riletto."],
  "map.title": ["Live map", "Mappa dal vivo"],
  "map.label": ["Map: {drones} drones, {flying} of them flying, {orders} open orders. Arrows move it, plus and minus zoom, N and P go through the drones, C through the charge points.",
    "Mappa: {drones} droni, {flying} in volo, {orders} ordini aperti. Le frecce la spostano, più e meno ingrandiscono, N e P scorrono i droni, C i punti di ricarica."],
  "map.in": ["Zoom in", "Ingrandisci"],
  "map.out": ["Zoom out", "Riduci"],
  "map.fit": ["Show everything", "Mostra tutto"],
  "map.loading": ["Waiting for the gateway …", "In attesa del gateway …"],
  "map.empty": ["No drones yet. They appear here as soon as the simulator starts.", "Ancora nessun drone. Appaiono qui appena parte il simulatore."],
  "filters": ["What the map shows", "Che cosa mostra la mappa"],
  "type.light": ["light", "leggero"],
  "type.medium": ["medium", "medio"],
  "type.heavy": ["heavy", "pesante"],
  "orders.filter": ["orders", "ordini"],
  "status.idle": ["idle", "libero"],
  "status.busy": ["busy", "in servizio"],
  "status.charging": ["charging", "in carica"],
  "status.retiring": ["retiring", "in rientro"],
  "status.inactive": ["inactive", "inattivo"],
  "status.lost": ["lost", "perso"],
  "status.pending": ["pending", "in attesa"],
  "status.assigned": ["assigned", "assegnato"],
  "status.in_flight": ["in flight", "in volo"],
  "status.delivered": ["delivered", "consegnato"],
  "status.cancelled": ["cancelled", "annullato"],
  "status.failed": ["failed", "fallito"],
  "leg.to_origin": ["on its way to pick up", "verso il ritiro"],
  "leg.to_destination": ["parcel on board", "pacco a bordo"],
  "orders": ["Orders", "Ordini"],
  "orders.note": ["newest first", "dal più recente"],
  "orders.empty": ["No orders yet.", "Ancora nessun ordine."],
  "orders.some": ["{shown} of {count}, newest first", "{shown} di {count}, dal più recente"],
  "fleet": ["Fleet", "Flotta"],
  "fleet.empty": ["No drones yet.", "Ancora nessun drone."],
  "fleet.count": ["{count} drones", "{count} droni"],
  "fleet.some": ["{shown} of {count} drones", "{shown} di {count} droni"],
  "none.match": ["Nothing matches “{text}”.", "Niente corrisponde a “{text}”."],
  "search": ["Filter by id, status, zone", "Filtra per id, stato, zona"],
  "order": ["Order", "Ordine"],
  "status": ["Status", "Stato"],
  "weight": ["Weight", "Peso"],
  "route": ["Route", "Tratta"],
  "drone": ["Drone", "Drone"],
  "age": ["Age", "Età"],
  "type": ["Type", "Tipo"],
  "battery": ["Battery", "Batteria"],
  "zone": ["Zone", "Zona"],
  "zone.n": ["zone {n}", "zona {n}"],
  "outside": ["outside", "fuori"],
  "no.fly": ["no flying here", "divieto di volo"],
  "show.order": ["Show order {id} on the map", "Mostra l’ordine {id} sulla mappa"],
  "show.drone": ["Show {id} on the map", "Mostra {id} sulla mappa"],
  "detail": ["Details", "Dettagli"],
  "detail.close": ["Close", "Chiudi"],
  "detail.follow": ["Follow", "Segui"],
  "detail.position": ["Position", "Posizione"],
  "detail.history": ["History", "Storia"],
  "detail.flown": ["Its orders", "I suoi ordini"],
  "detail.noOrders": ["None that is known here.", "Nessuno noto qui."],
  "detail.unknown": ["This order is not known any more.", "Questo ordine non è più noto."],
  "detail.arrives": ["Arrives in", "Arriva tra"],
  "detail.pickup": ["Pick-up in", "Ritiro tra"],
  "detail.waits": ["Waits for", "Attende"],
  "detail.reason": ["Reason", "Motivo"],
  "charge.title": ["Charge point, {zone}", "Punto di ricarica, {zone}"],
  "charge.here": ["Charging: {count}", "In carica: {count}"],
  "charge.waiting": ["Waiting for a slot: {count}", "In coda: {count}"],
  "charge.coming": ["On their way: {count}", "In arrivo: {count}"],
  "detail.since": ["{age} ago", "{age} fa"],
  "detail.now": ["any moment", "a momenti"],
};

const LANGUAGE_LISTENERS = [];
let index = 0;

/** The words of that key, with `{name}` replaced from `values`. */
export function t(key, values = {}) {
  const words = WORDS[key]?.[index] ?? key;
  return words.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** Whether there are words of that key. */
export const isWord = (key) => key in WORDS;

/** More words: key → [English, Italian]. */
export function addWords(words) {
  Object.assign(WORDS, words);
}

/** What a status is called; one that is not known is shown as it came. */
export const statusName = (status) => (WORDS[`status.${status}`] ? t(`status.${status}`) : String(status ?? "–"));

export const typeName = (type) => (WORDS[`type.${type}`] ? t(`type.${type}`) : String(type ?? "–"));

/** @param {{name: string}} zone */
export const zoneName = (zone) => {
  const number = /^zone (\d+)$/.exec(zone.name)?.[1];
  return number === undefined ? zone.name : t("zone.n", { n: number });
};

export const language = () => LANGUAGES[index];

export function onLanguage(listener) {
  LANGUAGE_LISTENERS.push(listener);
}

export function setLanguage(name, keep = true) {
  index = Math.max(0, LANGUAGES.indexOf(name));
  if (keep) kept(() => localStorage.setItem(KEPT_AS, name));
  document.documentElement.lang = language();
  translate(document);
  for (const listener of LANGUAGE_LISTENERS) listener();
}

/** Fills in the words that markup names; those that a module has not added yet are left alone. */
export function translate(root) {
  for (const [attribute, write] of [
    ["i18n", (node, words) => { node.textContent = words; }],
    ["i18nLabel", (node, words) => node.setAttribute("aria-label", words)],
    ["i18nHint", (node, words) => node.setAttribute("placeholder", words)],
  ]) {
    const selector = `[data-${attribute.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}]`;
    for (const node of root.querySelectorAll(selector)) if (isWord(node.dataset[attribute])) write(node, t(node.dataset[attribute]));
  }
}

/** Storage may be forbidden; then the choice lasts as long as the page. */
function kept(act) {
  try {
    return act();
  } catch {
    return null;
  }
}

setLanguage(kept(() => localStorage.getItem(KEPT_AS)) ?? (navigator.language.toLowerCase().startsWith("it") ? "it" : "en"), false);
