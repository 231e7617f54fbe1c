"use strict";
// One colour per run on the whole page; after ten runs the colours come again with another line.
(() => {
  const LIGHT = ["#1f6fd6", "#d4541b", "#16876b", "#b5368f", "#8a6d00", "#6a4fd0", "#c22f3d", "#0f8aa8", "#5c7a1a", "#6b7280"];
  const DARK = ["#6aa8ff", "#ff9a62", "#4cc9a3", "#f08bd0", "#e0bd3a", "#ab9bff", "#ff8088", "#54c7e6", "#a8cc5c", "#aab2bd"];
  const DASHES = ["solid", "dash", "dot", "dashdot"];
  const SYMBOLS = ["circle", "diamond", "square", "x"];
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const index = new Map(data.runs.map((name, place) => [name, place]));
  const shown = data.runs.map(() => true);
  let printing = false;

  const colour = (place) => (dark.matches && !printing ? DARK : LIGHT)[place % LIGHT.length];
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Plotly reads a few tags in its texts; a run's name is text only.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function axis(title, more) {
    return {
      title: { text: title, font: { size: 12 }, standoff: 8 }, gridcolor: token("--line"), linecolor: token("--line"),
      zeroline: false, automargin: true, tickfont: { size: 11 }, ...more,
    };
  }

  function layout(more) {
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { family: "system-ui, sans-serif", color: token("--soft") }, margin: { l: 56, r: 14, t: 30, b: 44 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: token("--line"), activecolor: token("--soft") },
      hoverlabel: { bgcolor: token("--raised"), bordercolor: token("--line"), font: { color: token("--ink"), size: 12 }, namelength: 40 },
      ...more,
    };
  }

  function curve(chart) {
    const traces = [];
    for (const line of chart.lines) {
      const place = index.get(line.run);
      const look = { color: colour(place), dash: DASHES[Math.floor(place / LIGHT.length) % DASHES.length] };
      if (line.raw) {
        traces.push({ x: line.raw.x, y: line.raw.y, mode: "lines", line: { ...look, width: 1 }, opacity: chart.lines.length < 4 ? 0.22 : chart.lines.length < 7 ? 0.13 : 0.07, hoverinfo: "skip", visible: shown[place] });
      }
      traces.push({
        x: line.x, y: line.y, name: plain(line.run), mode: line.x.length < 40 ? "lines+markers" : "lines",
        line: { ...look, width: 2 }, marker: { size: 6, symbol: SYMBOLS[Math.floor(place / LIGHT.length) % SYMBOLS.length] },
        hovertemplate: "%{y:.5~g}", visible: shown[place],
      });
    }
    const y = axis(chart.y, chart.range ? { range: chart.range } : {});
    return [traces, layout({ hovermode: "x unified", xaxis: axis(chart.x, { rangemode: "tozero" }), yaxis: y })];
  }

  function dots(chart) {
    const n = chart.lines.length;
    const last = chart.y.length - 1;
    const traces = chart.lines.map((line, order) => {
      const place = index.get(line.run);
      const points = line.points.map((point, row) => ({ point, y: last - row + (n > 1 ? 0.76 * (0.5 - order / (n - 1)) : 0) })).filter((each) => each.point);
      const width = (side) => points.map(({ point }) => (point.low === null ? 0 : Math.abs(side(point) - point.mean)));
      return {
        x: points.map(({ point }) => point.mean), y: points.map((each) => each.y), name: plain(line.run), mode: "markers",
        marker: { color: colour(place), size: 8, symbol: SYMBOLS[Math.floor(place / LIGHT.length) % SYMBOLS.length] }, visible: shown[place],
        error_x: { type: "data", symmetric: false, array: width((p) => p.high), arrayminus: width((p) => p.low), color: colour(place), thickness: 1.6, width: 3 },
        text: points.map(({ point }) => point.mean.toFixed(1) + (point.low === null ? "" : ` [${point.low.toFixed(1)}, ${point.high.toFixed(1)}]`) + (point.n ? `, n = ${point.n}` : "")),
        hovertemplate: "%{text}",
      };
    });
    const marks = { tickvals: chart.y.map((_, row) => last - row), ticktext: chart.y, range: [-0.6, last + 0.6], showgrid: false, title: undefined };
    const rules = chart.y.slice(1).map((_, row) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: row + 0.5, y1: row + 0.5, line: { color: token("--line"), width: 1 } }));
    return [traces, layout({ hovermode: "closest", xaxis: axis(chart.x), yaxis: axis("", marks), shapes: rules })];
  }

  function draw(place) {
    const chart = data.charts[Number(place.dataset.chart)];
    if (chart.kind === "dots") place.style.height = `${Math.max(270, 84 + chart.y.length * (24 + 11 * chart.lines.length))}px`;
    const [traces, look] = chart.kind === "dots" ? dots(chart) : curve(chart);
    place.dataset.drawn = "yes";
    return Plotly.react(place, traces, look, {
      responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "pan2d"],
    });
  }

  function paint() {
    for (const dot of document.querySelectorAll(".dot")) dot.style.background = colour(Number(dot.dataset.colour));
    for (const place of document.querySelectorAll("details[open] .chart")) draw(place);
  }

  function press() {
    for (const chip of document.querySelectorAll(".chip")) chip.setAttribute("aria-pressed", String(shown[Number(chip.dataset.run)]));
    document.querySelector(".all").hidden = shown.every(Boolean);
    paint();
  }

  for (const chip of document.querySelectorAll(".chip")) {
    const run = Number(chip.dataset.run);
    chip.addEventListener("click", () => { shown[run] = !shown[run]; press(); });
    chip.addEventListener("dblclick", () => { shown.forEach((_, place) => { shown[place] = place === run; }); press(); });
  }
  document.querySelector(".all").addEventListener("click", () => { shown.fill(true); press(); });
  for (const panel of document.querySelectorAll("details")) {
    panel.addEventListener("toggle", () => { if (panel.open) panel.querySelectorAll(".chart:not([data-drawn])").forEach(draw); });
  }
  dark.addEventListener("change", paint);
  addEventListener("beforeprint", () => { printing = true; paint(); });
  addEventListener("afterprint", () => { printing = false; paint(); });
  paint();
})();
