// The page: shows each state of the session, and sends the user's actions.

import {act, byId, element, follow, get, trouble, wishesText} from "./server.js";
import {makeControls, showDvh, showFigures, showSettings} from "./panels.js";
import {makePlanes, showPlan} from "./planes.js";
import {makeBelow, showBelow} from "./below.js";

let state = null, against = null; // plan to compare with; null for the one before

const previous = () => {
  if (!state || state.position < 1) return null;
  const before = state.steps[state.position - 1];
  return before === state.current ? null : before;
};

function showAgainst() {
  const pinned = state.pinned.filter(number => number !== state.current);
  if (against !== null && !pinned.includes(against)) against = null;
  const options = [["", "the plan before"], ...pinned.map(number => [number, `plan ${number}`])];
  byId("against").replaceChildren(...options.map(([value, text]) => element("option", {value}, text)));
  byId("against").value = against ?? "";
}

function showStatus() {
  const computation = state.computation;
  byId("progress").hidden = byId("course").hidden = !computation;
  let text = "";
  if (computation) {
    const [evaluations, seconds, objective] = computation.points.at(-1) ?? [0, 0, null];
    const share = Math.min(1, evaluations / computation.evaluations);
    byId("progress").firstElementChild.style.width = `${100 * share}%`;
    byId("progress").setAttribute("aria-valuenow", Math.round(100 * share));
    const values = computation.points.map(point => Math.log(point[2])), low = Math.min(...values), high = Math.max(...values);
    byId("course").firstElementChild.setAttribute("points", values.map((value, number) =>
      `${100 * number / Math.max(computation.evaluations - 1, values.length - 1, 1)},${20 - 18 * (value - low) / Math.max(high - low, 1e-9)}`).join(" "));
    text = objective === null ? `Planning: ${computation.stage}` : `Planning: ${computation.stage}, objective ${objective.toPrecision(4)} after ${seconds.toFixed(1)} s`;
  } else if (state.judging !== null) text = `Plan ${state.current}; judging the whole body`;
  else if (state.current !== null) text = `Plan ${state.current}: ${wishesText(state.settings)}`;
  byId("status").textContent = text;
  document.body.dataset.busy = computation ? "planning" : state.judging !== null ? "judging" : "";
  document.body.dataset.plan = state.current ?? "";
  trouble(state.error);
}

function show(next) {
  state = next;
  showSettings(state.settings);
  showStatus();
  showAgainst();
  byId("undo").disabled = !state.can_undo;
  byId("redo").disabled = !state.can_redo;
  byId("another").disabled = !state.can_draw || state.current === null;
  byId("pin").disabled = state.current === null;
  byId("pin").textContent = state.pinned.includes(state.current) ? "Release plan" : "Pin plan";
  byId("export").classList.toggle("off", state.current === null);
  byId("export").setAttribute("aria-disabled", state.current === null);
  if (state.current !== null) byId("export").href = `/plans/${state.current}/export`;
  const other = against ?? previous();
  if (state.computation?.preview) showPlan(0, state.computation.number, null, null);
  else if (state.current !== null) showPlan(state.current, state.plans[state.current], other, other === null ? null : state.plans[other]);
  showDvh(state);
  showFigures(state, other);
  showBelow(state);
}

async function open() {
  const [page, first] = await Promise.all([get("/page"), get("/state")]);
  document.title = `${page.case}: plan by wish`;
  byId("case").textContent = page.case;
  byId("facts").textContent = `${page.prescription} in ${page.fractions} fractions · ${page.machine}`;
  makeControls(page, first);
  makePlanes(page);
  makeBelow();
  for (const name of ["undo", "redo", "another"]) byId(name).addEventListener("click", () => act(name));
  byId("pin").addEventListener("click", () => act(state.pinned.includes(state.current) ? "unpin" : "pin", {plan: state.current}));
  byId("against").addEventListener("change", () => { against = byId("against").value === "" ? null : Number(byId("against").value); show(state); });
  document.addEventListener("keydown", event => {
    if (!event.ctrlKey && !event.metaKey) return;
    const action = event.key === "z" && !event.shiftKey ? "undo" : event.key === "y" || (event.key.toLowerCase() === "z" && event.shiftKey) ? "redo" : null;
    if (action === null) return;
    event.preventDefault();
    if (!byId(action).disabled) act(action);
  });
  document.addEventListener("redraw", () => show(state));
  show(first);
  follow(show);
}

open().catch(error => trouble(error.message));
