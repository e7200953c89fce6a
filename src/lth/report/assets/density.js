// Charts against density, and the chips that hide series.

function seriesChips() {
  const row = one("#series");
  if (!row) return;
  const chips = Object.entries(data.looks).map(([key, look]) => {
    const swatch = `<svg width="30" height="12" aria-hidden="true"><line x1="1" x2="29" y1="6" y2="6" stroke-width="2.5" ` +
      `stroke="var(--c${look.colour % colours})" stroke-dasharray="${strokes[look.line % strokes.length]}"/>` +
      `<circle cx="15" cy="6" r="3.6" fill="var(--c${look.colour % colours})"/></svg>`;
    return chip(look.name, swatch, () => !chosen.off.has(key), (on) => {
      on ? chosen.off.delete(key) : chosen.off.add(key);
      drawDensity();
    });
  });
  if (data.density.some((chart) => Object.values(chart.quantities).some((q) => q.paper.length))) {
    const swatch = '<svg width="30" height="12" aria-hidden="true"><line x1="1" x2="29" y1="6" y2="6" stroke-width="4" stroke="var(--paper)"/></svg>';
    chips.push(chip("the paper", swatch, () => !chosen.off.has("paper"), (on) => {
      on ? chosen.off.delete("paper") : chosen.off.add("paper");
      drawDensity();
    }));
  }
  row.replaceChildren(...chips);
}

function chip(name, swatch, isOn, set) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "chip";
  button.innerHTML = swatch;
  button.append(name);
  button.setAttribute("aria-pressed", isOn());
  button.addEventListener("click", () => {
    set(!isOn());
    button.setAttribute("aria-pressed", isOn());
  });
  return button;
}

function drawDensity() {
  data.density.forEach(drawOneDensity);
}

const remark = (line, i) => (line.level[i] === line.winning ? "<br>winning level" : "") + (line.late.includes(line.level[i]) ? "<br>early stop not reached" : "");

/** A ring around the winning level, and crosses where an early stop was not reached. */
function ring(line, color) {
  const marks = [[line.level.map((level) => level === line.winning), "circle-open", 16, "winning level"], [line.level.map((level) => line.late.includes(level)), "x-thin-open", 14, "early stop not reached"]];
  return marks.filter(([on]) => on.some(Boolean)).map(([on, symbol, size, name]) => ({
    name, x: line.percent.filter((_, i) => on[i]), y: line.mean.filter((_, i) => on[i]), mode: "markers", hoverinfo: "skip",
    marker: { symbol, size, color, line: { color, width: 2 } },
  }));
}

function drawOneDensity(chart) {
  const card = one(`#chart-${chart.id}`);
  const name = picked(card, "quantity", Object.keys(chart.quantities)[0]);
  const quantity = chart.quantities[name];
  const format = formats[quantity.kind];
  const keyed = quantity.lines.map((line) => ({ line, look: data.looks[`${line.run}/${line.family}`], key: `${line.run}/${line.family}` }));
  const shown = keyed.filter(({ key }) => !chosen.off.has(key));
  const papers = chosen.off.has("paper") ? [] : quantity.paper;
  const lookOf = (family) => Object.entries(data.looks).find(([key]) => key.endsWith(`/${family}`))?.[1] ?? { line: 0 };
  const traces = papers.map((line) => ({
    name: escaped(line.label), x: line.percent, y: line.mean, mode: "lines",
    line: { color: css("--paper"), width: 3, dash: dashes[lookOf(line.family).line % dashes.length] },
    text: line.mean.map((v, i) => `${escaped(line.label)}<br>${formatPercent(line.percent[i])} of weights: ${format(v)}`), hoverinfo: "text",
  }));
  traces.push(...shown.map(({ line, look }) => ({
    name: escaped(line.label), x: line.percent, y: line.mean, mode: "lines+markers",
    line: { color: colour(look), dash: dashes[look.line % dashes.length], width: 2 },
    marker: { size: 8, symbol: markers[look.colour % colours], color: colour(look) },
    error_y: {
      type: "data", symmetric: false, thickness: 1.2, width: 3, visible: line.n.some((n) => n > 1),
      array: line.high.map((v, i) => v - line.mean[i]), arrayminus: line.mean.map((v, i) => v - line.low[i]),
    },
    text: line.mean.map((v, i) => `<b>${escaped(line.label)}</b>, level ${line.level[i]}: ${formatPercent(line.percent[i])} of weights` +
      ` (${whole(line.weights[i])})${remark(line, i)}<br><b>${format(v)}</b>` + (line.n[i] > 1 ? `; ${format(line.low[i])} to ${format(line.high[i])}, n = ${line.n[i]}` : "; n = 1")),
    hoverinfo: "text",
  })));
  traces.push(...shown.flatMap(({ line, look }) => ring(line, colour(look))));
  const log = isLog(card, false);
  const percents = [...quantity.lines, ...quantity.paper].flatMap((line) => line.percent);
  const y = { title: quantity.label, type: log ? "log" : "linear", tickformat: ticks[quantity.kind] };
  const means = shown.flatMap(({ line }) => line.mean);
  const top = Math.max(...shown.flatMap(({ line }) => line.high));
  const bottom = quantity.kind === "accuracy" && !log ? cut(shown.map(({ line }) => line.mean), top) : null;
  const behind = papers.flatMap((line) => line.mean);
  if (bottom !== null) y.range = [bottom, accuracyRange(bottom, top)[1]];
  else if (quantity.kind === "accuracy" && !log && shown.length) {
    y.range = accuracyRange(Math.min(...behind, ...shown.flatMap(({ line }) => line.low)), Math.max(...behind, top));
  }
  else if (!log && ["iteration", "seconds"].includes(quantity.kind)) y.rangemode = "tozero";
  one(".note", card).textContent = bottom === null ? "" : `Cut below; the lowest mean is ${format(Math.min(...means))}. A double click shows all.`;
  all("[data-quantity]", card).forEach((table) => { table.hidden = table.dataset.quantity !== name; });
  const ends = shown.map(({ line }) => {
    const last = line.mean.length - 1;
    return `${line.label}: ${format(line.mean[0])} at ${formatPercent(line.percent[0])} of the weights, ${format(line.mean[last])} at ${formatPercent(line.percent[last])}.`;
  });
  plot(one(".plot", card), traces, layout(percentAxis(percents, isLog(one("#density"), true)), y), `${capital(quantity.label)} against density. ${ends.join(" ")}`);
}
