// Curves by iteration.

/** From dark to light down the ladder (light to dark on a dark page); level 0 in the colour of text. */
function ramp(place) {
  const stops = ["--ramp0", "--ramp1", "--ramp2"].map((name) => css(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
  const at = Math.min(place, 0.9999) * 2, low = Math.floor(at);
  return `rgb(${stops[low].map((v, i) => Math.round(v + (stops[low + 1][i] - v) * (at - low))).join(",")})`;
}
const levelColour = (i, n) => (i === 0 ? css("--text") : ramp(n > 2 ? (i - 1) / (n - 2) : 0));

function drawIterations() {
  const card = one("#chart-iterations");
  if (!card) return;
  const key = picked(card, "curves", "");
  const curves = data.iterations.find((c) => c.key === key) ?? data.iterations[0];
  const quantitySelect = one('[data-pick="quantity"]', card);
  fill(quantitySelect, Object.entries(curves.quantities).map(([name, q]) => [name, q.label]));
  const name = picked(card, "quantity", Object.keys(curves.quantities)[0]);
  const quantity = curves.quantities[name] || Object.values(curves.quantities)[0];
  const format = formats[quantity.kind];
  const on = chosen.levels[key] ?? new Set(curves.shown); // until a reader says, what the page shows: levels arrive
  const n = curves.levels.length;
  const star = (i) => formatPercent(curves.percents[i]) + (curves.levels[i] === curves.winning ? " *" : "");
  const traces = [], later = [];
  curves.levels.forEach((level, i) => {
    if (!on.has(level)) return;
    const points = curves.iterations.map((_, j) => j).filter((j) => quantity.mean[i][j] !== null);
    const x = points.map((j) => curves.iterations[j]), y = points.map((j) => quantity.mean[i][j]);
    later.push(...y.filter((_, j) => x[j] >= 0.04 * x[x.length - 1]));
    if (quantity.low) {
      const backwards = [...points].reverse();
      traces.push({
        x: [...x, ...backwards.map((j) => curves.iterations[j])], fill: "toself", mode: "lines", hoverinfo: "skip", showlegend: false,
        y: [...points.map((j) => quantity.low[i][j]), ...backwards.map((j) => quantity.high[i][j])],
        line: { width: 0 }, fillcolor: levelColour(i, n), opacity: 0.14,
      });
    }
    traces.push({
      name: star(i), x, y, mode: "lines", line: { color: levelColour(i, n), width: 2, dash: i ? "solid" : "dash" },
      text: y.map((v, j) => `level ${level}: ${formatPercent(curves.percents[i])} of weights<br>iteration ${whole(x[j])}: <b>${format(v)}</b>`), hoverinfo: "text",
    });
  });
  const log = isLog(card, quantity.kind === "loss");
  const y = { title: quantity.label, type: log ? "log" : "linear", tickformat: ticks[quantity.kind] };
  let note = "";
  if (later.length) { // the first steep moments leave the frame
    const low = Math.min(...later), high = Math.max(...later), scale = log && low > 0 ? Math.log10 : (v) => v;
    const room = 0.06 * (scale(high) - scale(low)) || 0.1 * Math.abs(scale(high)) || 0.1;
    y.range = quantity.kind === "accuracy" && !log ? accuracyRange(low, high) : [scale(low) - room, scale(high) + room];
    note = "The first steep moments are outside the frame; a double click shows all.";
  }
  one(".note", card).textContent = note;
  one("#levels").replaceChildren(...curves.levels.map((level, i) => {
    const swatch = `<svg width="14" height="12" aria-hidden="true"><line x1="0" x2="14" y1="6" y2="6" stroke-width="4" stroke="${levelColour(i, n)}"/></svg>`;
    const button = chip(star(i), swatch, () => on.has(level), (now) => {
      now ? on.add(level) : on.delete(level);
      chosen.levels[key] = on;
      drawIterations();
      all("#levels .chip")[i].focus();
    });
    button.setAttribute("aria-label", `level ${level}, ${formatPercent(curves.percents[i])} of weights${level === curves.winning ? ", the winning level" : ""}`);
    return button;
  }));
  const names = curves.levels.filter((level) => on.has(level)).map((level) => formatPercent(curves.percents[curves.levels.indexOf(level)]));
  plot(one(".plot", card), traces, layout({ title: "iteration", tickformat: ",~f" }, y), `${capital(quantity.label)} by iteration, for ${names.join(", ") || "no level"} of the weights.`);
  behind(one("details", card), () => {
    const kept = curves.levels.map((level, i) => [level, i]).filter(([level]) => on.has(level));
    return [["iteration", ...kept.map(([, i]) => formatPercent(curves.percents[i]))],
      curves.iterations.map((n, j) => [whole(n), ...kept.map(([, i]) => (quantity.mean[i][j] === null ? "" : format(quantity.mean[i][j])))]),
      `Means of ${quantity.label} over trials, by iteration and percent of weights`];
  });
}
