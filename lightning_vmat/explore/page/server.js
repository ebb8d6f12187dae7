// What the page asks of the session, and the session's state as it changes.

export const byId = id => document.getElementById(id);

export const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
};

const LOST = "Connection lost; trying again";

class LostConnection extends Error {}

// Drawings that were asked for while the connection was lost are asked for again with the next state.
addEventListener("unhandledrejection", event => {
  if (!(event.reason instanceof LostConnection)) return;
  event.preventDefault();
  byId("status").textContent = LOST;
});

export async function get(path) {
  const response = await fetch(path).catch(() => { throw new LostConnection(LOST); });
  const content = await response.json().catch(() => ({error: `status ${response.status}`}));
  if (!response.ok) throw new Error(content.error);
  return content;
}

export async function act(action, body = {}) {
  const headers = {"Content-Type": "application/json"};
  try {
    const response = await fetch(`/act/${action}`, {method: "POST", headers, body: JSON.stringify(body)});
    const content = await response.json();
    trouble(response.ok ? "" : content.error);
  } catch {
    trouble("The session does not answer. Is vmat explore still running?");
  }
}

export function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

// Calls `changed` with every state. The browser connects again by itself when the connection is lost.
export function follow(changed) {
  const events = new EventSource("/events");
  events.onmessage = event => changed(JSON.parse(event.data));
  events.onerror = () => { byId("status").textContent = LOST; };
}

// The last calls' answers by address, so that scrolling back costs nothing.
export class Answers {
  constructor(most) { this.most = most; this.kept = new Map(); }

  get(path) {
    let answer = this.kept.get(path);
    if (!answer) {
      answer = get(path);
      answer.catch(() => this.kept.delete(path));
    }
    this.kept.delete(path);
    this.kept.set(path, answer);
    if (this.kept.size > this.most) this.kept.delete(this.kept.keys().next().value);
    return answer;
  }
}

export const wishesText = settings => {
  const wished = Object.entries(settings.wishes).map(([name, factor]) => `${wishName(name)} × ${factorText(factor)}`);
  const more = [];
  if (settings.normalisation !== "none") more.push(settings.normalisation);
  if (settings.arc !== "case") more.push({full: "one full turn", two_full: "two full turns", partial: "240° arc"}[settings.arc]);
  if (settings.collimator_deg !== null) more.push(`collimator ${settings.collimator_deg}°`);
  return [...wished, ...more].join(", ") || "no wishes";
};

export const wishName = name => ({Body: "Conformity", homogeneity: "Homogeneity", FemoralHeads: "Femoral heads"})[name] || name;
export const factorText = factor => String(Number(factor.toPrecision(2)));
