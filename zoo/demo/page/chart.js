// The chart of one sample: each network's probability of the right class at every stop of the slider.
const HEIGHT = 230, LEFT = 40, RIGHT = 12, TOP = 10, BOTTOM = 38;

export const firstWrong = (slide, label) => slide.classes.findIndex(answer => answer !== label);

function element(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

export function drawChart(place, { slides, label, radius, stop, names }) {
  const width = Math.max(260, place.clientWidth);
  const x = at => LEFT + (width - LEFT - RIGHT) * at / radius;
  const y = share => TOP + (HEIGHT - TOP - BOTTOM) * (1 - share);
  const said = slides.map((slide, i) => `${names[i]}: ${firstWrong(slide, label) < 0 ? "right throughout"
    : `wrong from ${firstWrong(slide, label)}/255`}`).join("; ");
  const svg = element("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": said });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(share), y2: y(share) }),
      element("text", { class: "tick", x: LEFT - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share}%`));
  }
  const every = Math.ceil(radius / 8);
  for (let at = 0; at <= radius; at += every) {
    svg.append(element("text", { class: "tick", x: x(at), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, at));
  }
  svg.append(element("text", { class: "label", x: (LEFT + width - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" },
    "largest change of a pixel, in 1/255"));
  svg.append(element("line", { class: "cursor", x1: x(stop), x2: x(stop), y1: TOP, y2: HEIGHT - BOTTOM }));
  slides.forEach((slide, i) => {
    const points = slide.confidence.map((share, at) => `${x(at).toFixed(1)},${y(share).toFixed(1)}`);
    svg.append(element("polyline", { class: `line c${i % 8}`, points: points.join(" ") }));
    const wrong = firstWrong(slide, label);
    if (wrong >= 0) svg.append(cross(x(wrong), y(slide.confidence[wrong]), i));
    svg.append(element("circle", { class: `mark c${i % 8}`, cx: x(stop), cy: y(slide.confidence[stop]), r: 5 }));
  });
  place.replaceChildren(svg);
}

const cross = (x, y, i) => element("path", { class: `cross c${i % 8}`, d: `M${x - 6} ${y - 6}l12 12m0-12l-12 12` });
