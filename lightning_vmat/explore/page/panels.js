// Left: wishes and settings. Right: histograms, goals and figures.

import {act, byId, element, factorText, get, trouble, wishName} from "./server.js";

const STEP = 0.25; // of the logarithm to base 2
const REST_MS = 60; // after which a moved slider counts as resting
const BUDGETS = [3, 6, 10, 20, 40];
const ANGLES = [0, 5, 10, 15, 20, 30, 45, 60, 75, 90, 350, 345, 330, 315];
const PREVIEW_MS = 400;

let dragged = 0; // time until which the user's slider counts, and not the session's

export function makeControls(page, state) {
  const sliders = byId("sliders");
  for (const name of page.wishes) {
    const id = `wish-${name}`;
    const goals = name === "FemoralHeads" ? page.protocol_goals.FemoralHeadLeft : page.protocol_goals[name === "homogeneity" ? "" : name];
    const input = element("input", {type: "range", id, min: -2, max: 2, step: STEP, value: 0, "data-wish": name});
    const box = element("div", {class: "wish"}, element("label", {class: "name", for: id}, wishName(name)), element("output", {for: id}), input);
    if (goals) {
      box.append(element("small", {id: `${id}-goals`}, goals.join(", ")));
      input.setAttribute("aria-describedby", `${id}-goals`);
    }
    let timer = 0;
    const send = () => { clearTimeout(timer); act("change", {settings: {wishes: {[name]: 2 ** Number(input.value)}}}); };
    input.addEventListener("input", () => {
      dragged = performance.now() + 1000;
      showFactor(input);
      clearTimeout(timer);
      timer = setTimeout(send, REST_MS);
    });
    box.addEventListener("dblclick", () => { input.value = 0; showFactor(input); send(); });
    sliders.append(box);
  }
  byId("reset").addEventListener("click", () =>
    act("change", {settings: {wishes: Object.fromEntries(page.wishes.map(name => [name, 1]))}}));
  byId("planner").append(...page.planners.map(name => element("option", {value: name}, name)));
  const budgets = [...new Set([...BUDGETS, state.settings.evaluations])].sort((a, b) => a - b);
  byId("evaluations").append(...budgets.map(count => element("option", {value: count}, `${count} evaluations`)));
  byId("collimator_deg").append(element("option", {value: ""}, "of the case"), ...ANGLES.map(angle => element("option", {value: angle}, `${angle}°`)));
  for (const name of ["normalisation", "planner", "evaluations", "arc", "collimator_deg"]) {
    const select = byId(name);
    select.disabled = page.fixed_arcs && ["arc", "collimator_deg"].includes(name);
    select.addEventListener("change", () => {
      const number = ["evaluations", "collimator_deg"].includes(name);
      act("change", {settings: {[name]: !number ? select.value : select.value === "" ? null : Number(select.value)}});
    });
  }
  byId("wishes").addEventListener("submit", event => event.preventDefault());
}

// `factor` is the session's, which may lie between two steps of the slider.
function showFactor(input, factor = 2 ** Number(input.value)) {
  const text = `× ${factorText(factor)}`;
  input.parentElement.querySelector("output").textContent = text;
  input.parentElement.classList.toggle("wished", factor !== 1);
  input.setAttribute("aria-valuetext", `${wishName(input.dataset.wish)} ${text}`);
}

export function showSettings(settings) {
  if (performance.now() > dragged) {
    for (const input of document.querySelectorAll("#sliders input")) {
      const value = Math.log2(settings.wishes[input.dataset.wish] || 1);
      input.max = Math.max(2, Math.ceil(value));
      input.min = Math.min(-2, Math.floor(value));
      input.value = value;
      showFactor(input, settings.wishes[input.dataset.wish] || 1);
    }
  }
  for (const name of ["normalisation", "planner", "evaluations", "arc"]) byId(name).value = settings[name];
  const angle = settings.collimator_deg === null ? "" : String(settings.collimator_deg);
  byId("collimator_deg").value = angle;
}

let shownDvh = "", shownPreview = 0, shownFigures = "";

export async function showDvh(state) {
  const others = state.pinned.filter(number => number !== state.current).slice(-3);
  const query = new URLSearchParams(others.map(number => ["other", number])).toString();
  const computation = state.computation, now = performance.now();
  if (computation && (computation.preview || computation.course)) {
    const key = `${computation.number}/${computation.points.length}/${query}`;
    if (key === shownDvh || now - shownPreview < PREVIEW_MS) return;
    shownDvh = key;
    shownPreview = now;
    const answer = await get(`/plans/0/dvh?${query}`).catch(() => null);
    if (answer?.svg && shownDvh === key) drawDvh(answer.svg, "preview");
    return;
  }
  if (state.current === null) return;
  const key = `plan ${state.current}/${state.plans[state.current]}/${others.map(number => `${number}${state.plans[number]}`)}`;
  if (key === shownDvh) return;
  shownDvh = key;
  const answer = await get(`/plans/${state.current}/dvh?${query}`);
  if (shownDvh === key) drawDvh(answer.svg, `plan ${state.current}`);
}

function drawDvh(svg, of) {
  const place = byId("dvh");
  place.innerHTML = svg;
  place.dataset.of = of;
}

export async function showFigures(state, against) {
  if (state.current === null) return;
  const key = `${state.current}/${state.plans[state.current]}/${against}/${state.plans[against]}`;
  if (key === shownFigures) return;
  shownFigures = key;
  const plan = await get(`/plans/${state.current}${against === null ? "" : `?against=${against}`}`);
  if (shownFigures !== key) return;
  const broken = Object.entries(plan.broken).map(([name, count]) => `${count} × ${name.replaceAll("_", " ")}`).join(", ");
  const figures = [
    ["Goals met", `${plan.goals_met} of ${plan.goals.length}`, plan.goals_met === plan.goals.length ? "good" : "bad"],
    ["Machine", plan.violations ? broken : "✓ keeps limits", plan.violations ? "bad" : "good"],
    ["MU", plan.mu.toFixed(0), ""],
    ["Delivery", `${plan.delivery_s.toFixed(0)} s`, ""],
  ];
  byId("figures").replaceChildren(...figures.map(([name, value, mood]) =>
    element("div", {class: mood}, element("dt", {}, name), element("dd", {}, value))));
  byId("figures").dataset.plan = plan.number;
  byId("figures").dataset.violations = plan.violations;
  byId("goals").tBodies[0].replaceChildren(...plan.goals.map(goal => element("tr", {class: goal.met ? "" : "missed"},
    element("td", {}, element("span", {class: "structure"}, goal.structure), ` ${goal.measure === "Maximum" ? "max" : goal.measure}`),
    element("td", {class: "number"}, goal.limit),
    element("td", {class: `number mark ${goal.met ? "good" : "bad"}`}, `${goal.met ? "✓" : "✗"} ${goal.value}`),
    element("td", {class: `number ${goal.better === null ? "" : goal.better ? "better" : "worse"}`}, goal.difference))));
  const how = plan.exact ? "Judged on every voxel of the body." : "Estimated on a sample of voxels; the whole body follows.";
  byId("judged").textContent = `Plan ${plan.number}: objective ${plan.objective.toPrecision(4)}, planned in ${plan.seconds.toFixed(1)} s. ${how}`;
  byId("said").textContent = `Plan ${plan.number}: ${plan.goals_met} of ${plan.goals.length} goals met`; // for screen readers, once a plan
  trouble(state.error);
}
