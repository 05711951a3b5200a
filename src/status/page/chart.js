// A throughput chart: one line over the last minutes, drawn as SVG.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 64;
const HEAD = 4;
// Minimum width of the chart in seconds. Less than a minute of values would otherwise be a stroke at the edge.
const LEAST = 60;

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// Creates a chart of the last `reach` values, one per second. `shown` formats a value for the caption. Call `show` of
// the result to draw new values.
export function chart(reach, shown) {
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "chart", role: "img" });
  const area = make("path", { fill: "currentColor", "fill-opacity": "0.18" });
  const line = make("path", { fill: "none", stroke: "currentColor", "stroke-width": "1.5", "vector-effect": "non-scaling-stroke" });
  const title = make("title", {});
  svg.append(title, area, line);
  const caption = document.createElement("p");
  caption.className = "soft";
  function show(values) {
    const last = values.slice(-reach);
    const most = Math.max(1, ...last);
    const span = Math.max(LEAST, last.length);
    const x = (at) => ((span - last.length + at) / (span - 1)) * WIDTH;
    const y = (value) => HEIGHT - 1 - (value / most) * (HEIGHT - 1 - HEAD);
    const points = last.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
    line.setAttribute("d", points.length ? `M${points.join("L")}` : "");
    area.setAttribute("d", points.length ? `M${x(0).toFixed(1)},${HEIGHT}L${points.join("L")}L${WIDTH},${HEIGHT}Z` : "");
    title.textContent = "Throughput, one line over time";
    caption.textContent = `Last ${Math.ceil(span / 60)} min, at most ${shown(most === 1 ? 0 : most)}`;
  }
  return { svg, caption, show };
}
