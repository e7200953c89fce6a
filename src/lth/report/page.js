"use strict";
// The page's behaviour: draws what stands in #data, and keeps what a reader has chosen when a served page is renewed.
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const whole = (number) => Math.round(number).toLocaleString("en-US");
  const percentSaid = (p) => (p > 99.95 ? "100" : p >= 0.95 ? p.toFixed(1) : p.toPrecision(2)) + "%";
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const colours = 7;
  const markers = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  const strokes = ["", "6 3", "2 3", "6 3 2 3", "9 3", "9 3 2 3"];
  const colour = (look) => css(`--c${look.colour % colours}`);
  const formats = {
    accuracy: (v) => (100 * v).toFixed(2) + "%",
    iteration: whole,
    seconds: (v) => (v >= 100 ? whole(v) : v.toPrecision(3)) + " s",
    loss: (v) => Number(v.toPrecision(4)).toString(),
  };
  const ticks = { accuracy: ".3~%", iteration: ",~f", seconds: ",~f", loss: "~g" };
  const chosen = { off: new Set(), levels: {}, log: {}, pick: {}, open: new Set() }; // what a reader has set

  let data = null;

  // ------------------------------------------------------------------------------------------------------------ plots

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

  // -------------------------------------------------------------------------------------------------- against density

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

  function drawOneDensity(chart) {
    const card = one(`#chart-${chart.id}`);
    const name = picked(card, "quantity", Object.keys(chart.quantities)[0]);
    const quantity = chart.quantities[name];
    const said = formats[quantity.kind];
    const keyed = quantity.lines.map((line) => ({ line, look: data.looks[`${line.run}/${line.family}`], key: `${line.run}/${line.family}` }));
    const shown = keyed.filter(({ key }) => !chosen.off.has(key));
    const papers = chosen.off.has("paper") ? [] : quantity.paper;
    const lookOf = (family) => Object.entries(data.looks).find(([key]) => key.endsWith(`/${family}`))?.[1] ?? { line: 0 };
    const traces = papers.map((line) => ({
      name: escaped(line.label), x: line.percent, y: line.mean, mode: "lines",
      line: { color: css("--paper"), width: 3, dash: dashes[lookOf(line.family).line % dashes.length] },
      text: line.mean.map((v, i) => `${escaped(line.label)}<br>${percentSaid(line.percent[i])} of weights: ${said(v)}`), hoverinfo: "text",
    }));
    traces.push(...shown.map(({ line, look }) => ({
      name: escaped(line.label), x: line.percent, y: line.mean, mode: "lines+markers",
      line: { color: colour(look), dash: dashes[look.line % dashes.length], width: 2 },
      marker: { size: 8, symbol: markers[look.colour % colours], color: colour(look) },
      error_y: {
        type: "data", symmetric: false, thickness: 1.2, width: 3, visible: line.n.some((n) => n > 1),
        array: line.high.map((v, i) => v - line.mean[i]), arrayminus: line.mean.map((v, i) => v - line.low[i]),
      },
      text: line.mean.map((v, i) => `<b>${escaped(line.label)}</b>, level ${line.level[i]}: ${percentSaid(line.percent[i])} of weights` +
        ` (${whole(line.weights[i])})<br><b>${said(v)}</b>` + (line.n[i] > 1 ? `; ${said(line.low[i])} to ${said(line.high[i])}, n = ${line.n[i]}` : "; n = 1")),
      hoverinfo: "text",
    })));
    const log = isLog(card, false);
    const percents = [...quantity.lines, ...quantity.paper].flatMap((line) => line.percent);
    const y = { title: quantity.label, type: log ? "log" : "linear", tickformat: ticks[quantity.kind] };
    const means = shown.flatMap(({ line }) => line.mean);
    const top = Math.max(...shown.flatMap(({ line }) => line.high));
    const bottom = quantity.kind === "accuracy" && !log ? cut(shown.map(({ line }) => line.mean), top) : null;
    if (bottom !== null) y.range = [bottom, top + 0.05 * (top - bottom)];
    else if (!log && ["iteration", "seconds"].includes(quantity.kind)) y.rangemode = "tozero";
    one(".note", card).textContent = bottom === null ? "" : `Cut below; the lowest mean is ${said(Math.min(...means))}. A double click shows all.`;
    all("[data-quantity]", card).forEach((table) => { table.hidden = table.dataset.quantity !== name; });
    const ends = shown.map(({ line }) => {
      const last = line.mean.length - 1;
      return `${line.label}: ${said(line.mean[0])} at ${percentSaid(line.percent[0])} of the weights, ${said(line.mean[last])} at ${percentSaid(line.percent[last])}.`;
    });
    plot(one(".plot", card), traces, layout(percentAxis(percents, isLog(one("#density"), true)), y), `${capital(quantity.label)} against density. ${ends.join(" ")}`);
  }

  // ------------------------------------------------------------------------------------------------------ by iteration

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
    const said = formats[quantity.kind];
    const on = chosen.levels[key] ?? new Set(curves.shown); // until a reader says, what the page shows: levels arrive
    const n = curves.levels.length;
    const traces = [], later = [];
    curves.levels.forEach((level, i) => {
      if (!on.has(level)) return;
      const points = curves.iterations.map((_, j) => j).filter((j) => quantity.mean[i][j] !== null);
      const x = points.map((j) => curves.iterations[j]), y = points.map((j) => quantity.mean[i][j]);
      later.push(...y.filter((_, j) => x[j] >= 0.04 * x[x.length - 1]));
      if (quantity.low) {
        const backwards = [...points].reverse();
        traces.push({
          x: [...x, ...backwards.map((j) => curves.iterations[j])], fill: "toself", mode: "lines", hoverinfo: "skip",
          y: [...points.map((j) => quantity.low[i][j]), ...backwards.map((j) => quantity.high[i][j])],
          line: { width: 0 }, fillcolor: levelColour(i, n), opacity: 0.14,
        });
      }
      traces.push({
        name: percentSaid(curves.percents[i]), x, y, mode: "lines", line: { color: levelColour(i, n), width: 2, dash: i ? "solid" : "dash" },
        text: y.map((v, j) => `level ${level}: ${percentSaid(curves.percents[i])} of weights<br>iteration ${whole(x[j])}: <b>${said(v)}</b>`), hoverinfo: "text",
      });
    });
    const log = isLog(card, quantity.kind === "loss");
    const y = { title: quantity.label, type: log ? "log" : "linear", tickformat: ticks[quantity.kind] };
    let note = "";
    if (later.length) { // the first steep moments leave the frame
      const low = Math.min(...later), high = Math.max(...later), scale = log && low > 0 ? Math.log10 : (v) => v;
      const room = 0.06 * (scale(high) - scale(low)) || 0.1 * Math.abs(scale(high)) || 0.1;
      y.range = [scale(low) - room, scale(high) + room];
      note = "The first steep moments are outside the frame; a double click shows all.";
    }
    one(".note", card).textContent = note;
    one("#levels").replaceChildren(...curves.levels.map((level, i) => {
      const swatch = `<svg width="14" height="12" aria-hidden="true"><line x1="0" x2="14" y1="6" y2="6" stroke-width="4" stroke="${levelColour(i, n)}"/></svg>`;
      const button = chip(percentSaid(curves.percents[i]), swatch, () => on.has(level), (now) => {
        now ? on.add(level) : on.delete(level);
        chosen.levels[key] = on;
        drawIterations();
        all("#levels .chip")[i].focus();
      });
      button.setAttribute("aria-label", `level ${level}, ${percentSaid(curves.percents[i])} of weights`);
      return button;
    }));
    const names = curves.levels.filter((level) => on.has(level)).map((level) => percentSaid(curves.percents[curves.levels.indexOf(level)]));
    plot(one(".plot", card), traces, layout({ title: "iteration", tickformat: ",~f" }, y), `${capital(quantity.label)} by iteration, for ${names.join(", ") || "no level"} of the weights.`);
    behind(one("details", card), () => {
      const kept = curves.levels.map((level, i) => [level, i]).filter(([level]) => on.has(level));
      return [["iteration", ...kept.map(([, i]) => percentSaid(curves.percents[i]))],
        curves.iterations.map((n, j) => [whole(n), ...kept.map(([, i]) => (quantity.mean[i][j] === null ? "" : said(quantity.mean[i][j])))]),
        `Means of ${quantity.label} over trials, by iteration and percent of weights`];
    });
  }

  // ---------------------------------------------------------------------------------------------------------- explorer

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
    const said = `Level ${now.level}: ${percentSaid(now.percent)} of the weights (${whole(now.weights)})`;
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
        ["density", bar(now.alive[i], layer.weights, percentSaid((100 * now.alive[i]) / layer.weights), "")],
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

  // ---------------------------------------------------------------------------------------------------------- controls

  /** What is chosen in one of a part's selects, also after the page was renewed. */
  function picked(part, name, otherwise) {
    const select = one(`[data-pick="${name}"]`, part), key = `${part.id} ${name}`;
    const valid = select ? [...select.options].map((o) => o.value) : [];
    const value = valid.includes(chosen.pick[key]) ? chosen.pick[key] : select?.value || otherwise;
    if (select) select.value = value;
    return value;
  }

  function isLog(part, otherwise) {
    const box = one("input[data-log]", part), on = chosen.log[part.id] ?? otherwise;
    if (box) box.checked = on;
    return on;
  }

  function fill(select, options) {
    if (options.length === select.options.length && options.every(([value, text], i) => select.options[i].value === value && select.options[i].text === text)) return;
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    select.closest("label").hidden = options.length < 2;
  }

  /** Fill the table behind a chart when it is looked at: it can be long. */
  function behind(details, make) {
    const show = () => {
      if (!details.open) return;
      const [head, rows, caption] = make(), table = document.createElement("table");
      table.createCaption().textContent = caption;
      const line = table.createTHead().insertRow();
      head.forEach((text) => { const cell = document.createElement("th"); cell.scope = "col"; cell.textContent = text; line.append(cell); });
      const body = table.createTBody();
      rows.forEach((row) => { const tr = body.insertRow(); row.forEach((text) => { tr.insertCell().textContent = text; }); });
      one(".scroll", details).replaceChildren(table);
    };
    details.ontoggle = show;
    show();
  }

  function listen(root) {
    all("[data-pick]", root).forEach((select) => select.addEventListener("change", () => {
      const part = select.closest("[data-part]");
      chosen.pick[`${part.id} ${select.dataset.pick}`] = select.value;
      redraw(part);
    }));
    all("input[data-log]", root).forEach((box) => box.addEventListener("change", () => {
      const part = box.closest("[data-part]");
      chosen.log[part.id] = box.checked;
      redraw(part);
    }));
    one("#level", root)?.addEventListener("input", (event) => {
      const part = one("#tickets"), trial = lookedInto(part, explored(part));
      chosen.level = trial.levels[event.target.value].level;
      drawExplorer();
    });
  }

  function redraw(part) {
    const chart = data.density.find(({ id }) => part.id === `chart-${id}`);
    if (chart) drawOneDensity(chart);
    else if (part.id === "density") drawDensity();
    else if (part.id === "chart-iterations") drawIterations();
    else drawExplorer();
  }

  // -------------------------------------------------------------------------------------------------------------- start

  /** Draw everything, a chart a task, so that the page answers meanwhile. */
  async function start() {
    data = JSON.parse(one("#data").textContent);
    listen(one("main"));
    seriesChips();
    const tasks = [...data.density.map((chart) => () => drawOneDensity(chart)), drawIterations, drawExplorer];
    for (const task of tasks) {
      task();
      await new Promise((next) => setTimeout(next));
    }
    one("#js-plotly-tester")?.setAttribute("aria-hidden", "true"); // what the library measures texts with
    document.documentElement.dataset.ready = "";
  }

  async function renew() {
    const html = await (await fetch("main.html", { cache: "no-store" })).text();
    const fresh = new DOMParser().parseFromString(html, "text/html").querySelector("main");
    const open = all("details[id]").filter((d) => d.open).map((d) => d.id), focused = document.activeElement?.id, y = scrollY;
    all(".plot").forEach((place) => Plotly.purge(place));
    one("main").replaceWith(fresh);
    open.forEach((id) => { const details = document.getElementById(id); if (details) details.open = true; });
    await start();
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    scrollTo(0, y);
  }

  async function follow(misses = 0) {
    let ended = false;
    try {
      const seen = one("main").dataset.version;
      const now = await (await fetch("state.json?seen=" + encodeURIComponent(seen), { cache: "no-store" })).json();
      if (now.version !== seen) await renew();
      else ended = now.ended; // else it is asked once more, and the server knows that the last state has arrived
      one("#live").textContent = now.said;
      misses = 0;
    } catch {
      misses += 1;
      if (misses > 3) one("#live").textContent = "The server has ended; this is what it showed last.";
    }
    if (!ended && misses <= 3) setTimeout(() => follow(misses), 1000);
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawDensity(); drawIterations(); drawExplorer(); });
  start().then(() => { if (document.body.dataset.live !== undefined) follow(); });
})();
