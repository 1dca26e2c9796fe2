// Breaking things on purpose, where the demo allows it (CHAOS=1): buttons for each service, and the guided experiments.

import { el, Keyed, setAttribute, setText } from "/dashboard/dom.js";
import { isWord, t } from "/dashboard/i18n.js";
import { EXPERIMENTS, Experiment } from "/dashboard/experiments.js";

const TIMEOUT_MS = 6000;

/// What a mode or an action is called; one that is not known is shown as it came.
const word = (kind, name) => (isWord(`${kind}.${name}`) ? t(`${kind}.${name}`) : String(name));

/// Does `action` to `service`; resolves once it was told.
export async function act(service, action) {
  const answer = await fetch(`/chaos/${service}/${action}`, {
    method: "POST",
    // Told twice is told once: lb may send it again when the gateway that took it dies of it.
    headers: { "X-Chaos": "1", "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? t("cluster.answered", { path: `/chaos/${service}/${action}`, status: answer.status }));
  return body;
}

/// What can be broken, and how it is.
export async function services() {
  const answer = await fetch("/chaos", { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!answer.ok) throw new Error(t("cluster.answered", { path: "/chaos", status: answer.status }));
  return (await answer.json()).services;
}

export class Chaos {
  constructor({ panel, services: body, experiments, runAll, follow }) {
    this.panel = panel;
    this.rows = new Keyed(body, (service) => this.makeRow(service), (row, service) => this.showRow(row, service));
    this.experiments = EXPERIMENTS.map((script) => new Experiment(script, { act, services, follow, refresh: () => this.update(true) }));
    experiments.replaceChildren(...this.experiments.map((experiment) => experiment.root));
    this.busy = false;
    this.runAllButton = runAll;
    runAll.addEventListener("click", () => this.run(this.experiments));
    for (const experiment of this.experiments) experiment.button.addEventListener("click", () => this.run([experiment]));
  }

  /// Renews what is shown; hidden where nothing may be broken.
  async update(allowed) {
    this.panel.hidden = !allowed;
    if (!allowed) return;
    this.rows.update(await services(), (service) => service.name);
  }

  /// Runs experiments one after the other; two at once would confuse each other.
  async run(experiments) {
    if (this.busy) return;
    this.busy = true;
    const buttons = [this.runAllButton, ...this.experiments.map((experiment) => experiment.button)];
    for (const button of buttons) button.disabled = true;
    for (const experiment of experiments) experiment.wait();
    for (const experiment of experiments) await experiment.run();
    for (const button of buttons) button.disabled = false;
    this.busy = false;
  }

  makeRow(service) {
    const mode = el("td", { class: "chaos-mode" });
    const buttons = service.actions.map((action) => {
      const button = el("button", { type: "button", "data-action": action });
      button.addEventListener("click", async () => {
        button.disabled = true;
        try {
          await act(service.name, action);
          await this.update(true);
          setText(problem, "");
        } catch (error) {
          setText(problem, error.message);
        }
        button.disabled = false;
      });
      return button;
    });
    this.nameButtons(buttons, service.name);
    const problem = el("span", { class: "chaos-problem", role: "status" });
    const root = el("tr", { "data-testid": "chaos-row", "data-service": service.name },
      el("th", { scope: "row" }, service.name), mode, el("td", {}, el("div", { class: "chaos-buttons" }, ...buttons), problem));
    return { root, mode, buttons };
  }

  showRow({ root, mode }, service) {
    setAttribute(root, "data-mode", service.mode);
    setText(mode, word("mode", service.mode));
  }

  nameButtons(buttons, service) {
    for (const button of buttons) {
      const action = word("action", button.dataset.action);
      setText(button, action);
      setAttribute(button, "aria-label", `${action} ${service}`);
    }
  }

  /// In another language.
  words() {
    for (const [name, { root, mode, buttons }] of this.rows.views) {
      this.nameButtons(buttons, name);
      setText(mode, word("mode", root.dataset.mode));
    }
    for (const experiment of this.experiments) experiment.words();
  }
}
