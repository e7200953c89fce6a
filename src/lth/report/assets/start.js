// Draws what stands in #data, and renews a served page.

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
