// Middle: dose on CT in three planes, the difference to another plan, and apertures.

import {Answers, byId, element, trouble} from "./server.js";

const slices = new Answers(240), films = new Answers(4);
const planes = new Map(); // name -> {box, index, count, shown}
const hidden = new Set(); // kinds of lines that are not shown
let view = "dose", current = null, against = null, page = null, levels = {};

export function makePlanes(given) {
  page = given;
  const [, coronal, sagittal] = page.planes.map(one => one.size[0] / one.size[1]);
  byId("planes").style.setProperty("--left", `${coronal.toFixed(3)}fr`);
  byId("planes").style.setProperty("--right", `${sagittal.toFixed(3)}fr`);
  for (const one of page.planes) {
    const name = one.plane[0].toUpperCase() + one.plane.slice(1);
    const box = element("div", {
      class: "plane", id: `plane-${one.plane}`, tabindex: 0, role: "slider", "aria-label": `${name} slice`,
      "aria-valuemin": 1, "aria-valuemax": one.count, "aria-orientation": "vertical",
      title: "Wheel, arrow keys, Page Up and Page Down scroll",
    });
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${one.size[0]} ${one.size[1]}`);
    box.append(svg, element("span", {class: "caption"}), element("span", {class: "flag"}));
    [..."tlbr"].forEach((side, number) => box.append(element("span", {class: `letter ${side}`}, one.letters[number])));
    const plane = {...one, name, box, svg, index: one.central, wheel: 0};
    planes.set(one.plane, plane);
    box.addEventListener("wheel", event => {
      event.preventDefault();
      plane.wheel += event.deltaY;
      const steps = Math.trunc(plane.wheel / 40);
      if (steps) { plane.wheel -= 40 * steps; scroll(plane, -steps); }
    }, {passive: false});
    box.addEventListener("keydown", event => {
      const steps = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5}[event.key];
      if (steps) scroll(plane, steps);
      else if (event.key === "Home") scroll(plane, -plane.index);
      else if (event.key === "End") scroll(plane, plane.count);
      else return;
      event.preventDefault();
    });
    byId("planes").append(box);
  }
  byId("isodoses").replaceChildren(...page.isodoses.map(line => {
    const mark = element("i");
    mark.style.background = line.colour;
    return element("span", {}, mark, `${line.dose_gy.toFixed(1)} Gy (${(100 * line.fraction).toFixed(0)} %)`);
  }));
  const shown = [["wash", "Dose wash", null], ["isodose", "Isodoses", null],
    ...Object.entries(page.styles).map(([name, style], number) => [`s${number}`, name, style])];
  byId("structures").replaceChildren(...shown.map(([kind, name, style]) => {
    const box = element("input", {type: "checkbox", checked: true, "aria-label": `Show ${name}`});
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(kind); else hidden.add(kind);
      byId("hiding").textContent = [...hidden].map(one => `#planes .${one} { display: none; }`).join(" ");
    });
    const label = element("label", {}, box);
    if (style) {
      const mark = element("span", {class: `swatch${style.dashed ? " dashed" : ""}`});
      mark.style.borderColor = style.colour;
      label.append(mark);
    }
    label.append(name);
    return label;
  }));
  for (const radio of document.querySelectorAll("input[name=view]")) radio.addEventListener("change", () => setView(radio.value));
  makeFilm();
  showBar();
}

function setView(value) {
  view = value;
  byId("slices").hidden = view === "apertures";
  byId("apertures").hidden = view !== "apertures";
  if (view !== "apertures") stop();
  showBar();
  draw();
}

function showBar() {
  const difference = view === "difference", wash = difference ? page.difference : page.wash;
  byId("bar").style.background = `linear-gradient(to right, ${wash.gradient})`;
  const low = difference ? -wash.top_gy : 0, step = difference ? wash.top_gy / 3 : 10, ticks = [];
  for (let gy = low; gy <= wash.top_gy + 1e-6; gy += step) {
    const tick = element("span", {}, `${difference && gy > 0.01 ? "+" : ""}${gy.toFixed(0)}${gy === low ? " Gy" : ""}`);
    tick.style.left = `${100 * (gy - low) / (wash.top_gy - low)}%`;
    ticks.push(tick);
  }
  byId("ticks").replaceChildren(...ticks);
}

// `shown` names the plan and whether its dose is exact, such as `3/true`; plan 0 is the preview.
export function showPlan(number, shown, other, otherShown) {
  const key = `${number}/${shown}`, otherKey = other === null ? null : `${other}/${otherShown}`;
  if (key === current && otherKey === against) return;
  current = key;
  against = otherKey;
  draw();
}

function draw() {
  if (current === null) return;
  if (view === "apertures") drawFilm();
  else for (const plane of planes.values()) drawSlice(plane);
}

function scroll(plane, steps) {
  plane.index = Math.min(plane.count - 1, Math.max(0, plane.index + steps));
  drawSlice(plane);
}

function address(plane, index) {
  const [number, shown] = current.split("/");
  const subtract = view === "difference" && against !== null ? `against=${against.split("/")[0]}&other=${against.split("/")[1]}&` : "";
  return `/plans/${number}/slices/${plane.plane}/${index}?${subtract}of=${shown}`;
}

async function drawSlice(plane) {
  const {index} = plane, wanted = address(plane, index);
  plane.wanted = wanted;
  plane.box.setAttribute("aria-valuenow", index + 1);
  let slice;
  try {
    slice = await slices.get(wanted);
  } catch (error) {
    trouble(error.message);
    return;
  }
  if (plane.wanted !== wanted || !slice.svg) return; // a preview ends with its computation
  plane.svg.innerHTML = slice.svg;
  const position = `${slice.position_mm >= 0 ? "+" : ""}${slice.position_mm.toFixed(1)} mm`;
  plane.box.querySelector(".caption").textContent = `${plane.name} ${position}`;
  plane.box.querySelector(".flag").textContent = current.startsWith("0/") ? "preview" : current.endsWith("true") ? "" : "quick dose";
  plane.box.setAttribute("aria-valuetext", `${plane.name} ${position}`);
  plane.box.dataset.shown = wanted;
  levels[plane.plane] = slice.at;
  for (const near of [index + 1, index - 1]) if (near >= 0 && near < plane.count && plane.box.matches(":hover, :focus")) slices.get(address(plane, near)).catch(() => {});
}

// -- apertures

let film = null, timer = 0;

function makeFilm() {
  byId("gantry").addEventListener("input", showFrame);
  byId("play").addEventListener("click", () => {
    if (timer) return stop();
    byId("play").textContent = "Pause";
    timer = setInterval(() => {
      byId("gantry").value = (Number(byId("gantry").value) + 1) % film.frames.length;
      showFrame();
    }, 140);
  });
}

function stop() {
  clearInterval(timer);
  timer = 0;
  byId("play").textContent = "Play";
}

async function drawFilm() {
  const number = current.split("/")[0];
  if (number === "0") return;
  film = await films.get(`/plans/${number}/apertures`);
  byId("gantry").max = film.frames.length - 1;
  showFrame();
}

function showFrame() {
  if (!film) return;
  const index = Math.min(Number(byId("gantry").value), film.frames.length - 1);
  byId("cine").innerHTML = film.frames[index];
  byId("gantry-text").textContent = film.labels[index];
  byId("gantry").setAttribute("aria-valuetext", film.labels[index]);
}
