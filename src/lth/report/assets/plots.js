// Plots and their axes.

function layout(x, y, more = {}) {
  const axis = { gridcolor: css("--edge"), linecolor: css("--edge"), zeroline: false, automargin: true };
  const title = (text) => ({ text: escaped(text), font: { size: 13, color: css("--quiet") }, standoff: 8 });
  return {
    xaxis: { ...axis, showgrid: false, ...x, title: title(x.title) },
    yaxis: { ...axis, ...y, title: title(y.title) },
    margin: { l: 44, r: 14, t: 10, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { family: "system-ui, sans-serif", size: 13, color: css("--text") },
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--edge"), font: { color: css("--text") }, align: "left" },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls the page
    ...more,
  };
}

function plot(place, traces, shape, label) {
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", label + " The table below the chart holds its numbers.");
  Plotly.react(place, traces, shape, { responsive: true, displayModeBar: false });
}

/** Save the chart of a card as an SVG file, on the card's own ground. */
function saveImage(card) {
  const place = one(".plot", card);
  const name = `${document.title.split(":")[0]}-${card.id.replace("chart-", "")}`.replace(/[^\w.-]+/g, "-");
  const shape = { ...place.layout, paper_bgcolor: css("--card"), title: { text: escaped(one("h3, h2", card)?.textContent ?? ""), font: { size: 15 } } };
  shape.margin = { ...shape.margin, t: 40 };
  const [width, height] = [Math.max(place.clientWidth, 640), Math.max(place.clientHeight, 400)];
  return Plotly.downloadImage({ data: place.data, layout: { ...shape, width, height, showlegend: true } }, { format: "svg", width, height, filename: name });
}

/** The range of an axis of accuracies: all values and some room, but nothing far outside 0 to 100%. */
function accuracyRange(low, high) {
  const room = Math.max(0.06 * (high - low), 0.002);
  return [Math.max(low - room, -0.01), Math.min(high + room, 1 + Math.min(room, 0.02))];
}

/** The bottom of an axis where outlying means would press all others together (Tukey's fence); null where none do,
 *  or where a whole curve would leave the frame. */
function cut(curves, top) {
  const sorted = curves.flat().sort((a, b) => a - b);
  const at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  const fence = at(0.25) - 1.5 * (at(0.75) - at(0.25));
  const outlying = sorted.length >= 12 && top - sorted[0] > 1.5 * (top - fence);
  return outlying && curves.every((means) => Math.max(...means) > fence) ? fence : null;
}

function percentAxis(percents, log) {
  const high = Math.max(...percents), low = Math.min(...percents);
  const scale = log ? Math.log10 : (p) => p;
  const margin = Math.max(0.04 * (scale(high) - scale(low)), log ? 0.02 : 2);
  const decades = [100, 10, 1, 0.1, 0.01].flatMap((ten) => (high / low > 12 ? [1, 0.5, 0.2] : [1, 0.7, 0.5, 0.3, 0.2]).map((part) => Number((ten * part).toPrecision(1))));
  const steps = decades.filter((p) => p >= low / 1.1 && p <= high * 1.01);
  const values = log ? { tickvals: steps, ticktext: steps.map((p) => p + "%") } : { ticksuffix: "%" };
  const range = [scale(high) + margin, scale(low) - margin];
  return { title: "weights remaining", type: log ? "log" : "linear", range, ...values };
}
