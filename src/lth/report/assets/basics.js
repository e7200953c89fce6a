// Names, formats and what a reader has chosen; all parts of the script share one scope.

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const whole = (number) => Math.round(number).toLocaleString("en-US");
const formatPercent = (p) => (p > 99.95 ? "100" : p >= 0.95 ? p.toFixed(1) : p.toPrecision(2)) + "%";
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
