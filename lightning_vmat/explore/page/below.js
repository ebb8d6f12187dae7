// Below: history, pinned plans side by side, and the trade-off of all plans.

import {Answers, act, byId, element, wishesText} from "./server.js";

const plans = new Answers(500);
const COLUMNS = 6;
let axes = [null, null], last = "";

const planOf = (number, exact) => plans.get(`/plans/${number}?of=${exact}`);

export function makeBelow() {
  ["across", "up"].forEach((id, number) => byId(id).addEventListener("change", () => {
    axes[number] = byId(id).value;
    last = "";
    document.dispatchEvent(new Event("redraw"));
  }));
}

export async function showBelow(state) {
  const key = JSON.stringify([state.plans, state.pinned, state.steps, state.position, state.current, axes]);
  if (key === last) return;
  last = key;
  const numbers = Object.keys(state.plans).map(Number);
  const made = new Map(await Promise.all(numbers.map(async number => [number, await planOf(number, state.plans[number])])));
  if (last !== key) return;
  showHistory(state, made);
  showPinned(state, made);
  showTradeoff(state, made);
}

function showHistory(state, made) {
  byId("history").replaceChildren(...state.steps.map((number, position) => {
    const text = wishesText(made.get(number).settings);
    const button = element("button", {type: "button", "aria-label": `Plan ${number}: ${text}`, title: text},
      element("b", {}, `#${number}`), element("span", {}, text), made.get(number).objective.toPrecision(3));
    button.addEventListener("click", () => act("choose", {plan: number}));
    const here = position === state.position;
    if (here) button.setAttribute("aria-current", "step");
    return element("li", {class: here ? "here" : position > state.position ? "undone" : ""}, button);
  }));
  const list = byId("history"), here = list.querySelector(".here"); // scrollIntoView would also scroll the page
  if (here) list.scrollTop = here.offsetTop - list.offsetTop - list.clientHeight / 2;
}

function showPinned(state, made) {
  const table = byId("pinned");
  const numbers = [...new Set([...(state.current === null ? [] : [state.current]), ...state.pinned])];
  if (!state.pinned.length) {
    table.replaceChildren(element("caption", {class: "hidden"}, "Pinned plans"), element("tbody", {}, element("tr", {}, element("td", {}, "Pin plans to see them side by side, and their histograms dotted."))));
    return;
  }
  const names = rows(made.get(numbers[0]));
  const head = numbers.map(number => {
    const release = element("button", {type: "button", class: "plain", "aria-label": `Release plan ${number}`}, "release");
    release.addEventListener("click", () => act("unpin", {plan: number}));
    return element("th", {scope: "col", class: "number", title: wishesText(made.get(number).settings)}, `#${number}${number === state.current ? " (current) " : " "}`, ...(state.pinned.includes(number) ? [release, " "] : []),
      element("a", {href: `/plans/${number}/export`, download: true, "aria-label": `Export plan ${number}`}, "export"));
  });
  table.replaceChildren(element("caption", {class: "hidden"}, "Pinned plans"),
    element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "Figure"), ...head)),
    element("tbody", {}, ...names.map(name => element("tr", {}, element("td", {}, name),
      ...numbers.map(number => element("td", {class: "number"}, digits(made.get(number).figures[name])))))));
}

const rows = plan => Object.keys(plan.figures).filter(name => / mean \(Gy\)| D95 \(Gy\)|homogeneity|^MU$|^Delivery|^Objective/.test(name) && !/^(Rectum|Bladder|Bowel|Body|Femoral|Penile|Left|Right).* D95/.test(name) && !/^(PTV|CTV).* mean/.test(name));

const digits = value => value === undefined ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);

function showTradeoff(state, made) {
  const first = made.values().next().value;
  if (!first) return;
  const names = Object.keys(first.figures);
  const organ = word => names.find(name => name.startsWith(word) && name.endsWith("mean (Gy)"));
  const means = names.filter(name => name.endsWith("mean (Gy)"));
  axes = [axes[0] ?? organ("Rectum") ?? means[0], axes[1] ?? organ("Bladder") ?? means[1] ?? names[0]];
  ["across", "up"].forEach((id, number) => {
    if (!byId(id).options.length) byId(id).append(...names.map(name => element("option", {value: name}, name)));
    byId(id).value = axes[number];
  });
  const points = [...made.values()].map(plan => ({number: plan.number, x: plan.figures[axes[0]], y: plan.figures[axes[1]], text: wishesText(plan.settings)}))
    .filter(point => Number.isFinite(point.x) && Number.isFinite(point.y));
  const [left, right, top, bottom] = [44, 398, 10, 222];
  const [x0, x1] = span(points.map(point => point.x)), [y0, y1] = span(points.map(point => point.y));
  const px = x => left + (right - left) * (x - x0) / (x1 - x0), py = y => bottom - (bottom - top) * (y - y0) / (y1 - y0);
  const svg = byId("tradeoff"), parts = [];
  for (let tick = 0; tick <= 4; tick++) {
    const x = x0 + tick * (x1 - x0) / 4, y = y0 + tick * (y1 - y0) / 4;
    parts.push(shape("path", {class: "axis", d: `M${px(x)} ${top}V${bottom}M${left} ${py(y)}H${right}`}));
    parts.push(shape("text", {x: px(x), y: bottom + 14, "text-anchor": "middle"}, digits(x)), shape("text", {x: left - 5, y: py(y) + 4, "text-anchor": "end"}, digits(y)));
  }
  parts.push(shape("text", {x: (left + right) / 2, y: bottom + 32, "text-anchor": "middle"}, axes[0]));
  parts.push(shape("text", {x: left, y: top - 1, "text-anchor": "start"}, ""));
  const order = point => (point.number === state.current ? 2 : state.pinned.includes(point.number) ? 1 : 0);
  for (const point of points.sort((a, b) => order(a) - order(b))) {
    const kind = ["", "pinned", "current"][order(point)];
    const label = `Plan ${point.number}: ${axes[0]} ${digits(point.x)}, ${axes[1]} ${digits(point.y)}; ${point.text}`;
    const circle = shape("circle", {cx: px(point.x), cy: py(point.y), r: kind ? 6 : 4.5, class: kind, tabindex: 0, role: "button", "aria-label": label});
    circle.append(shape("title", {}, label));
    const choose = () => act("choose", {plan: point.number});
    circle.addEventListener("click", choose);
    circle.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } });
    parts.push(circle);
  }
  svg.replaceChildren(...parts);
}

function span(values) {
  const low = Math.min(...values), high = Math.max(...values), more = Math.max(0.08 * (high - low), 0.01 * Math.abs(high), 1e-3);
  return [low - more, high + more];
}

function shape(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
