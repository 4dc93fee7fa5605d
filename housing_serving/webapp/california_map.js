// A map of California without any tiles: what Python says is drawn, and a place that is pointed at is told.
const SVG = "http://www.w3.org/2000/svg";
const ZOOMS = [1, 2, 4, 8];
const STEP = 0.05; // Degrees that an arrow key moves the cross, at the first zoom.

function add(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  parent.appendChild(element);
  return element;
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".map");
  const state = (root.state ??= { zoom: 0, place: null, given: null, center: null });
  const { west, north, scale, squeeze, width, height } = data.frame;
  const x = (longitude) => (longitude - west) * squeeze * scale;
  const y = (latitude) => (north - latitude) * scale;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const round = (value) => Math.round(value * 100) / 100;

  // A place that Python names wins over one that was only moved to.
  if (data.marker && JSON.stringify(data.marker) !== state.given) {
    state.given = JSON.stringify(data.marker);
    state.place = data.marker;
    const [left, top] = [x(data.marker[0]), y(data.marker[1])];
    if (state.zoom === 0 || !state.center) state.center = [left, top];
    const [inX, inY] = [width, height].map((side) => (side / ZOOMS[state.zoom]) * 0.45);
    if (Math.abs(left - state.center[0]) > inX || Math.abs(top - state.center[1]) > inY) state.center = [left, top];
  }
  state.center ??= [width / 2, height / 2];

  root.replaceChildren();
  const svg = add(root, "svg", { "aria-label": data.texts.label, role: data.clickable ? "application" : "img" });
  if (data.clickable) {
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-roledescription", data.texts.role);
    svg.classList.add("clickable");
  }
  add(svg, "path", { class: "land", d: data.outline });
  for (const [colour, dots] of data.dots) add(svg, "path", { class: "dots", d: dots, stroke: colour });
  for (const [colour, dots] of data.nearby) add(svg, "path", { class: "nearby", d: dots, stroke: colour });
  for (const [name, longitude, latitude] of data.cities) {
    add(svg, "circle", { class: "city", cx: x(longitude), cy: y(latitude), r: 1 });
    add(svg, "text", { class: "name", x: x(longitude), y: y(latitude), "data-east": 1 }, name);
  }
  const marker = add(svg, "g", { class: "marker" });
  for (const name of ["ring outer", "ring"]) add(marker, "circle", { class: name, r: 7 });
  add(marker, "path", { class: "cross", d: "M-12 0H-4M4 0H12M0 -12V-4M0 4V12" });

  const readout = document.createElement("p");
  readout.className = "readout";
  readout.setAttribute("aria-live", "polite");
  const controls = document.createElement("div");
  controls.className = "controls";

  function show() {
    const zoom = ZOOMS[state.zoom];
    const [w, h] = [width / zoom, height / zoom];
    const left = clamp(state.center[0] - w / 2, 0, width - w);
    const top = clamp(state.center[1] - h / 2, 0, height - h);
    svg.setAttribute("viewBox", `${left} ${top} ${w} ${h}`);
    svg.style.setProperty("--unit", 1 / zoom);
    svg.style.setProperty("--dot", 1 / Math.sqrt(zoom));
    for (const circle of svg.querySelectorAll(".city")) circle.setAttribute("r", 1.8 / zoom);
    for (const name of svg.querySelectorAll(".name")) {
      name.setAttribute("font-size", 13 / zoom);
      name.setAttribute("dx", 5 / zoom);
      name.setAttribute("dy", 4 / zoom);
    }
    marker.style.display = state.place ? "" : "none";
    if (state.place) {
      const [longitude, latitude] = state.place;
      marker.setAttribute("transform", `translate(${x(longitude)} ${y(latitude)}) scale(${1 / zoom})`);
      readout.textContent = `${latitude.toFixed(2)}° N, ${(-longitude).toFixed(2)}° ${data.texts.west}`;
    }
  }

  function choose() {
    setTriggerValue("picked", { longitude: state.place[0], latitude: state.place[1] });
  }

  function point(event) {
    const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [round(spot.x / scale / squeeze + west), round(north - spot.y / scale)];
  }

  if (data.clickable) {
    svg.onclick = (event) => {
      if (!event.target.matches(".land, .dots, .nearby, .city, .name")) return;
      state.place = point(event);
      show();
      choose();
    };
    svg.onkeydown = (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      const step = STEP / ZOOMS[state.zoom];
      if (event.key in moves && state.place) {
        const [east, up] = moves[event.key];
        const [lowest, highest] = [data.limits.longitude, data.limits.latitude];
        state.place = [
          clamp(round(state.place[0] + Math.max(step, 0.01) * east), ...lowest),
          clamp(round(state.place[1] + Math.max(step, 0.01) * up), ...highest),
        ];
        show();
      } else if ((event.key === "Enter" || event.key === " ") && state.place) choose();
      else return;
      event.preventDefault();
    };
  }

  for (const [direction, sign, label] of [
    [1, "+", data.texts.zoomIn],
    [-1, "−", data.texts.zoomOut],
  ]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = sign;
    button.setAttribute("aria-label", label);
    button.onclick = () => {
      state.zoom = clamp(state.zoom + direction, 0, ZOOMS.length - 1);
      if (state.place) state.center = [x(state.place[0]), y(state.place[1])];
      show();
    };
    controls.appendChild(button);
  }
  root.append(controls);
  if (data.clickable) root.append(readout);
  show();
}
