// The ticket explorer.

function drawExplorer() {
  const part = one("#tickets");
  if (!part) return;
  const run = explored(part);
  const trialSelect = one('[data-pick="trial"]', part), slider = one("#level"), layerSelect = one('[data-pick="layer"]', part);
  fill(trialSelect, run.trials.map((t) => [String(t.trial), `trial ${t.trial}`]));
  const trial = lookedInto(part, run);
  const wanted = chosen.level ?? run.winning ?? trial.levels[Math.floor(trial.levels.length / 2)].level;
  const reached = trial.levels.filter(({ level }) => level <= wanted).length; // a trial can end before another
  slider.max = trial.levels.length - 1;
  slider.value = Math.max(reached - 1, 0);
  const now = trial.levels[slider.value];
  const said = `Level ${now.level}: ${formatPercent(now.percent)} of the weights (${whole(now.weights)})`;
  one("#level-said").textContent = said;
  slider.setAttribute("aria-valuetext", said);
  drawLayers(trial, now);
  fill(layerSelect, trial.layers.map((layer, i) => [String(i), short(layer.name)]));
  const index = Math.min(Number(picked(part, "layer", "0")), trial.layers.length - 1);
  drawPixels(trial, now);
  drawStarts(trial.layers[index], now.starts[index]);
}
/** What the explorer looks into: runs by their number, trials by theirs, as more of them arrive. */
const explored = (part) => data.explorer.find((r) => String(r.run) === picked(part, "run", "")) ?? data.explorer[0];
const lookedInto = (part, run) => run.trials.find((t) => String(t.trial) === picked(part, "trial", "")) ?? run.trials[0];
const short = (name) => name.replace(/\.weight$/, "");

function drawLayers(trial, now) {
  const rows = trial.layers.map((layer, i) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = short(layer.name);
    row.append(name);
    const cells = [
      ["shape", layer.shape.replaceAll("x", " × ")],
      ["weights", `${whole(now.alive[i])} of ${whole(layer.weights)}`],
      ["density", bar(now.alive[i], layer.weights, formatPercent((100 * now.alive[i]) / layer.weights), "")],
      ["dead units", bar(now.dead[i], layer.units, `${whole(now.dead[i])} of ${whole(layer.units)}`, "bad")],
      ["unread inputs", bar(now.unread[i], layer.inputs, `${whole(now.unread[i])} of ${whole(layer.inputs)}`, "bad")],
    ];
    for (const [head, content] of cells) {
      const cell = document.createElement("td");
      cell.dataset.head = head;
      cell.append(content);
      row.append(cell);
    }
    return row;
  });
  one("#layers tbody").replaceChildren(...rows);
}

function bar(part, whole_, text, kind) {
  const box = document.createElement("div");
  box.className = "bar " + kind;
  box.innerHTML = '<i aria-hidden="true"><b></b></i><span></span>';
  one("b", box).style.width = `${whole_ ? (100 * part) / whole_ : 0}%`;
  one("span", box).textContent = text;
  return box;
}

function drawPixels(trial, now) {
  const card = one("#chart-pixels");
  card.hidden = !now.pixels.length;
  if (card.hidden) return;
  const what = trial.kernel ? "place in the kernel" : trial.block > 1 ? `block of ${trial.block} × ${trial.block} pixels` : "input pixel";
  one("h3", card).textContent = `Surviving connections of each ${what}`;
  const rows = now.pixels.map((_, y) => y * trial.block), columns = now.pixels[0].map((_, x) => x * trial.block);
  const most = Math.max(...now.pixels.map((row) => Math.max(...row))), least = Math.min(...now.pixels.map((row) => Math.min(...row)));
  const map = {
    type: "heatmap", z: now.pixels, x: columns, y: rows, zmin: 0, zmax: most || 1, xgap: 0.5, ygap: 0.5,
    colorscale: [[0, css("--cold")], [1, css("--warm")]], hovertemplate: "row %{y}, column %{x}: <b>%{z}</b><extra></extra>",
    colorbar: { thickness: 12, outlinewidth: 0, title: { text: "" }, tickformat: ",~f" },
  };
  const side = { showgrid: false, ticks: "", zeroline: false, showline: false };
  plot(one(".plot", card), [map],
    layout({ ...side, title: "", constrain: "domain", constraintoward: "right" }, { ...side, title: "", autorange: "reversed", scaleanchor: "x", constrain: "domain" }),
    `Map of surviving connections: ${whole(least)} to ${whole(most)} for each ${what}.`);
  behind(one("details", card), () => [["row", ...columns], now.pixels.map((row, y) => [rows[y], ...row]), `Surviving connections by row and column, for each ${what}`]);
}

function drawStarts(layer, alive) {
  const card = one("#chart-starts");
  card.hidden = !layer.all.length;
  if (card.hidden) return;
  const bins = layer.all.length, width = (2 * layer.limit) / bins || 1;
  const middle = layer.all.map((_, i) => -layer.limit + (i + 0.5) * width);
  const share = (counts) => { const sum = counts.reduce((a, b) => a + b, 0); return counts.map((c) => (sum ? c / sum : 0)); };
  const every = share(layer.all), kept = share(alive);
  const text = (name, shares, counts) => shares.map((s, i) => `${name}, around ${middle[i].toPrecision(2)}<br><b>${(100 * s).toFixed(2)}%</b> (${whole(counts[i])} weights)`);
  const traces = [
    { name: "all", x: middle, y: every, mode: "lines", line: { shape: "hvh", width: 1, color: css("--paper") }, fill: "tozeroy", text: text("all weights", every, layer.all), hoverinfo: "text" },
    { name: "survivors", x: middle, y: kept, mode: "lines", line: { shape: "hvh", width: 2.2, color: css("--c0") }, text: text("survivors", kept, alive), hoverinfo: "text" },
  ];
  plot(one(".plot", card), traces, layout({ title: `initial value in ${short(layer.name)}` }, { title: "share of weights", tickformat: ".2~%", rangemode: "tozero" }),
    `Distribution of initial values in ${short(layer.name)}: survivors against all weights.`);
  behind(one("details", card), () => [["initial value", "all weights", "survivors"], middle.map((m, i) => [m.toPrecision(3), whole(layer.all[i]), whole(alive[i])]), `Weights by initial value in ${short(layer.name)}`]);
}
