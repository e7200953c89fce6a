// Selects, boxes and tables; their choices outlive the renewal of a served page.

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
  all("[data-save]", root).forEach((button) => button.addEventListener("click", () => saveImage(button.closest(".card"))));
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
