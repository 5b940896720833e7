// Draws the page's pictures with Plotly. Python lays the numbers out (curve_charts.py); what a person chooses on the
// page, the horizontal axis, the smoothing and the runs, is applied here.
"use strict";

const page = JSON.parse(document.getElementById("page-data").textContent);
const AXES = page.axes;
// As Plotly takes them, and SVG for the legend.
const DASHES = ["solid", "7px,3px", "2px,3px", "10px,3px,2px,3px", "12px,4px", "4px,2px"];
// Named, so that Plotly's button that uploads a picture is not among them.
const BUTTONS = [["toImage"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]];
const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: BUTTONS, showSendToCloud: false, plotlyServerURL: "" };

function theme() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(`--${name}`).trim();
  return { back: value("back"), text: value("text"), faint: value("faint"), line: value("line"), series: value("series").split(/\s+/) };
}

function choices() {
  const boxes = [...document.querySelectorAll("input.run")];
  return {
    axis: document.getElementById("axis")?.value ?? "steps",
    smoothing: Number(document.getElementById("smoothing")?.value ?? 0),
    training: document.getElementById("training")?.checked ?? true,
    hidden: new Set(boxes.filter((box) => !box.checked).map((box) => Number(box.value))),
  };
}

// Exponential moving average, corrected for its start at 0; what is not known stays unknown.
function smooth(values, weight) {
  let mean = 0, mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return mean / mass;
  });
}

// Plotly takes names and hover text for a little HTML.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// A name in lines of so many characters, so that it leaves room for the picture beside it.
const broken = (name) => (name.match(/.{1,18}/gu) ?? [""]).map(plain).join("<br>");

const distinct = (items) => [...new Set(items)];

// The curves of a chart that are to be seen, each with its look and its points along the horizontal axis.
function curvesToSee(chart, chosen, colours) {
  const names = chart.names ?? page.runs, several = names.length > 1;
  const labels = distinct(chart.curves.map((curve) => curve.label));
  const heldOut = new Set(chart.curves.filter((curve) => curve.kind === "held-out").map((curve) => `${curve.run} ${curve.label}`));
  const curves = chart.curves
    .map((curve) => ({ ...curve, points: curve.places ?? page.lines[curve.lines][chosen.axis] }))
    .filter((curve) => curve.points.some((point) => point !== null))
    .filter((curve) => curve.places || !chosen.hidden.has(curve.run))
    .filter((curve) => curve.kind !== "training" || chosen.training || !heldOut.has(`${curve.run} ${curve.label}`));
  const kinds = distinct(curves.map((curve) => curve.kind));
  return curves.map((curve) => {
    const series = labels.indexOf(curve.label), owner = several ? names[curve.run] : null;
    const parts = [owner, labels.length > 1 || !several ? curve.label : null, kinds.length > 1 ? curve.kind : null];
    return {
      ...curve,
      owner,
      exact: chart.exact,
      colour: curve.baseline ? colours.faint : colours.series[(several ? curve.run : series) % colours.series.length],
      dash: curve.baseline ? DASHES[2] : DASHES[series % DASHES.length],
      name: plain(parts.filter((part) => part !== null).join(" · ")),
    };
  });
}

function curveTraces(curve, smoothing) {
  const trace = {
    type: "scatter", mode: "lines", x: curve.points, y: curve.values, name: curve.name,
    line: { color: curve.colour, dash: curve.dash, width: 1.8 }, hovertemplate: "%{y:.5~g}",
  };
  if (curve.remarks) Object.assign(trace, { customdata: curve.remarks.map(plain), hovertemplate: "%{y:.5~g}, %{customdata}" });
  if (curve.baseline) return [trace];
  if (curve.kind !== "training") {
    return [{ ...trace, mode: "lines+markers", line: { ...trace.line, width: 2.2 }, marker: { color: curve.colour, size: 6 } }];
  }
  if (smoothing === 0 || curve.exact || curve.values.length < 3) return [trace];
  const raw = { ...trace, opacity: 0.35, line: { ...trace.line, dash: "solid", width: 1 }, hoverinfo: "skip", hovertemplate: undefined };
  return [raw, { ...trace, y: smooth(curve.values, smoothing) }];
}

function referenceTraces(chart, curves, colours) {
  const points = distinct(curves.flatMap((curve) => curve.points)).filter((point) => point !== null);
  if (points.length === 0) return [];
  const ends = typeof points[0] === "number" ? [points.reduce((a, b) => Math.min(a, b)), points.reduce((a, b) => Math.max(a, b))] : points;
  return referencesToSee(chart, curves).map((reference) => ({
    type: "scatter", mode: "lines", x: ends, y: ends.map(() => reference.value), name: plain(reference.label),
    line: { color: colourOfReference(chart, reference, colours), dash: "5px,5px", width: 1.5 }, hovertemplate: "%{y:.5~g}",
  }));
}

// What is healthy, at the points of the run that is compared with reference runs.
function bandTraces(chart, curves, axis, colours) {
  return bandsToSee(chart, curves).flatMap((band) => {
    const places = page.lines[band.lines][axis], known = (value, at) => value !== null && places[at] !== null;
    const colour = colourOfBand(chart, band, colours), kept = (values) => values.filter(known), x = places.filter((_, at) => known(band.least[at], at));
    const edge = { type: "scatter", mode: "lines", x, name: plain(band.label), line: { color: `${colour}66`, width: 1 }, hoverinfo: "skip" };
    return [{ ...edge, y: kept(band.least) }, { ...edge, y: kept(band.most), fill: "tonexty", fillcolor: `${colour}33` }];
  });
}

function bandsToSee(chart, curves) {
  const runs = new Set(curves.map((curve) => curve.run));
  return (chart.bands ?? []).filter((band) => runs.has(band.run));
}

function colourOfBand(chart, band, colours) {
  return distinct(chart.bands.map((each) => each.run)).length > 1 ? colours.series[band.run % colours.series.length] : colours.faint;
}

// Where runs have different lines of reference, those of the runs that are to be seen, each in the colour of its run.
function referencesToSee(chart, curves) {
  const runs = new Set(curves.map((curve) => curve.run)), all = chart.lines_of_reference;
  return all.length > 1 ? all.filter((reference) => reference.runs.some((run) => runs.has(run))) : all;
}

function colourOfReference(chart, reference, colours) {
  return chart.lines_of_reference.length > 1 ? colours.series[reference.runs[0] % colours.series.length] : colours.faint;
}

// Plotly's own legend answers to the mouse alone, and covers the axis on a small screen. Here runs have colours and
// kinds of curves dashes; where there is one run, its kinds of curves have both.
function showLegend(chart, curves, colours) {
  const legend = document.getElementById(`legend-${chart.key}`);
  const owners = new Map(curves.filter((curve) => curve.owner !== null && !curve.baseline).map((curve) => [curve.owner, [curve.colour, "solid"]]));
  const labels = new Map(curves.map((curve) => [curve.label, [owners.size ? colours.faint : curve.colour, curve.dash]]));
  const entries = [...owners, ...(labels.size > 1 || !owners.size ? labels : [])];
  legend.replaceChildren(...entries.map(([entry, look]) => legendButton(chart, legend, entry, look)));
  for (const reference of referencesToSee(chart, curves)) {
    const item = document.createElement("span");
    item.append(lineSample(colourOfReference(chart, reference, colours), "5px,5px"), reference.label);
    legend.append(item);
  }
  for (const band of bandsToSee(chart, curves)) {
    const item = document.createElement("span");
    item.append(lineSample(`${colourOfBand(chart, band, colours)}66`, "solid"), band.label);
    legend.append(item);
  }
}

function legendButton(chart, legend, entry, look) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", String(!chart.off?.has(entry)));
  button.append(lineSample(...look), entry);
  button.addEventListener("click", () => {
    chart.off ??= new Set();
    if (!chart.off.delete(entry)) chart.off.add(entry);
    draw(chart);
    [...legend.querySelectorAll("button")].find((other) => other.textContent === entry)?.focus();
  });
  return button;
}

function lineSample(colour, dash) {
  const sample = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  sample.setAttribute("class", "sample");
  sample.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const look = { x1: 0, x2: 28, y1: 5, y2: 5, stroke: colour, "stroke-width": 2.5, "stroke-dasharray": dash === "solid" ? "none" : dash };
  for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
  sample.append(line);
  return sample;
}

// Lying boxes, for the names beside them are long.
function spreadTraces(chart, colours) {
  const several = chart.names.length > 1;
  return chart.spread.map((part) => {
    const colour = colours.series[part.run % colours.series.length];
    const place = several ? `${broken(chart.names[part.run])}<br>${plain(part.split)}` : plain(part.split);
    const shared = {
      orientation: "h", y: part.values.map(() => place), x: part.values, text: part.remarks.map(plain),
      hovertemplate: "%{x:.2f}, %{text}<extra></extra>",
    };
    if (part.type !== "box") {
      const marker = part.type === "baseline" ? { symbol: "diamond", size: 11, color: colours.faint } : { symbol: "x", size: 9, color: colour };
      return { ...shared, type: "scatter", mode: "markers", name: part.type, marker };
    }
    return {
      ...shared, type: "box", name: plain(part.split), boxpoints: "all", pointpos: 0, jitter: 0.4, boxmean: true,
      line: { color: colour, width: 1.5 }, marker: { color: colour, size: 8 },
    };
  });
}

function layout(chart, chosen, colours) {
  const axis = { gridcolor: colours.line, zerolinecolor: colours.line, linecolor: colours.line };
  const unit = { text: plain(chart.unit), standoff: 8 };
  const shared = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colours.text, size: 12 },
    margin: { t: 12, r: 12, b: 48, l: 62 }, hovermode: chart.spread ? "closest" : "x unified", hoverdistance: 60,
    hoverlabel: { bgcolor: colours.back, bordercolor: colours.faint, font: { color: colours.text } }, showlegend: false,
    uirevision: chosen.axis,
  };
  if (chart.spread) {
    const y = { ...axis, type: "category", dtick: 1, automargin: true, autorange: "reversed" };
    return { ...shared, xaxis: { ...axis, title: unit, zeroline: false }, yaxis: y };
  }
  const x = { ...axis, title: { text: chart.axis ?? AXES[chosen.axis], standoff: 8 }, zeroline: false };
  if (chart.curves.some((curve) => typeof curve.places?.[0] === "string")) x.type = "category";
  else Object.assign(x, { tickformat: "~s", hoverformat: ",.6~g", rangemode: "tozero" });
  return { ...shared, xaxis: x, yaxis: { ...axis, title: unit, rangemode: chart.from_zero ? "tozero" : "normal" } };
}

function draw(chart) {
  const place = document.getElementById(`chart-${chart.key}`);
  const chosen = choices(), colours = theme();
  let traces;
  if (chart.spread) {
    traces = spreadTraces(chart, colours);
    place.style.height = `${6 + 4 * distinct(traces.map((trace) => trace.y[0])).length}rem`;
  } else {
    const curves = curvesToSee(chart, chosen, colours);
    showLegend(chart, curves, colours);
    const seen = curves.filter((curve) => !chart.off?.has(curve.owner) && !chart.off?.has(curve.label));
    const drawn = seen.flatMap((curve) => curveTraces(curve, chosen.smoothing));
    traces = [...bandTraces(chart, seen, chosen.axis, colours), ...drawn, ...referenceTraces(chart, seen, colours)];
  }
  return Plotly.react(place, traces, layout(chart, chosen, colours), CONFIG);
}

// The arrow keys move a reading from point to point, for the hand without a mouse and the eye without a screen.
function readByKeys(chart) {
  const place = document.getElementById(`chart-${chart.key}`), reading = document.getElementById(`reading-${chart.key}`);
  let at = -1;
  place.addEventListener("keydown", (event) => {
    if (event.target !== place || !["ArrowLeft", "ArrowRight", "Escape"].includes(event.key)) return;
    event.preventDefault();
    if (event.key === "Escape") {
      at = -1;
      reading.textContent = "";
      Plotly.Fx.unhover(place);
      return;
    }
    const read = place.data.map((trace, number) => ({ trace, number })).filter(({ trace }) => trace.hoverinfo !== "skip");
    const [along, across] = chart.spread ? ["y", "x"] : ["x", "y"];
    const stops = distinct(read.flatMap(({ trace }) => [...trace[along]])).filter((stop) => stop !== null);
    if (typeof stops[0] === "number") stops.sort((a, b) => a - b);
    at = Math.max(0, Math.min(stops.length - 1, at + (event.key === "ArrowRight" ? 1 : -1)));
    const hits = read.flatMap(({ trace, number }) =>
      [...trace[along]].flatMap((stop, point) => (stop === stops[at] && trace[across][point] !== null ? [{ curveNumber: number, pointNumber: point }] : [])));
    Plotly.Fx.hover(place, hits);
    const decode = new DOMParser();
    const text = (html) => decode.parseFromString(html.replaceAll("<br>", " "), "text/html").body.textContent;
    const values = hits.map((hit) => {
      const trace = place.data[hit.curveNumber];
      const name = text(trace.text?.[hit.pointNumber] ?? trace.name ?? "");
      return `${name} ${Number(trace[across][hit.pointNumber].toPrecision(5))}`;
    });
    const where = typeof stops[at] === "number" ? Number(stops[at].toPrecision(6)).toLocaleString("en") : text(stops[at]);
    reading.textContent = `${place.layout.xaxis.title.text} ${where}: ${values.join(", ")}`;
  });
}

// Picture by picture, those in sight first, so that the page answers in between; a newer choice ends the drawing for an
// older one.
let drawing = 0;
async function drawAll() {
  const mine = ++drawing;
  showControls();
  const waiting = page.charts.map((chart) => {
    const place = document.getElementById(`chart-${chart.key}`), { top, bottom } = place.getBoundingClientRect();
    return { chart, place, away: Math.max(0, top - innerHeight, -bottom) };
  });
  for (const part of [document.body, ...waiting.map(({ place }) => place)]) part.dataset.drawn = "no";
  for (const { chart, place } of waiting.sort((one, other) => one.away - other.away)) {
    await draw(chart);
    await new Promise((resolve) => setTimeout(resolve));
    if (mine !== drawing) return;
    place.dataset.drawn = "yes";
  }
  document.body.dataset.drawn = "yes";
}

function showControls() {
  const chosen = choices(), colours = theme(), notice = document.getElementById("axis-notice");
  for (const swatch of document.querySelectorAll(".swatch")) {
    swatch.style.background = colours.series[Number(swatch.dataset.run) % colours.series.length];
  }
  if (!notice) return;
  document.getElementById("smoothing-value").textContent = chosen.smoothing.toFixed(2);
  const without = page.runs.filter((_, run) =>
    Object.entries(page.lines).every(([name, lines]) => !name.startsWith(`${run} `) || lines[chosen.axis].every((point) => point === null)));
  notice.textContent = without.length ? `Not known of, and so not drawn: ${without.join(", ")} over ${AXES[chosen.axis]}.` : "";
}

page.charts.forEach(readByKeys);
let pending;
document.getElementById("controls")?.addEventListener("input", () => {
  showControls();
  clearTimeout(pending);
  pending = setTimeout(drawAll, 120);
});
document.getElementById("controls")?.addEventListener("submit", (event) => event.preventDefault());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
