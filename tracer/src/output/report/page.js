"use strict";
// Draws the figures of the page. Text goes in as text, never as markup: names come from a program that may be anybody's.
const report = JSON.parse(document.getElementById("figures").textContent);
const at = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "style") node.style.cssText = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
function shape(name, attributes = {}, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const count = (n) => n.toLocaleString("en");
function short(n) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(n) >= size) return +(n / size).toPrecision(3) + unit;
  }
  return String(+n.toPrecision(3));
}
function duration(ns) {
  if (ns === null || ns === undefined) return "-";
  for (const [size, unit] of [[3600e9, "h"], [60e9, "min"], [1e9, "s"], [1e6, "ms"], [1e3, "µs"]]) {
    if (ns >= size * (unit === "h" || unit === "min" ? 2 : 1)) return +(ns / size).toPrecision(3) + " " + unit;
  }
  return ns + " ns";
}
const file = (path) => path.split("/").slice(-2).join("/");
const where = (call) => (call.file ? file(call.file) + ":" + call.line : "");
const colour = (n) => "var(--c" + (n % 9) + ")";

// A function with its place behind it in grey; the whole path where the mouse rests.
function place(call) {
  return element("span", { title: call.file ? call.file + ":" + call.line : null }, call.function + " ",
    element("span", { class: "place" }, where(call)));
}

function header() {
  const { recording, totals, end } = report;
  const program = report.programs[report.programs.length - 1] || { exe: "a program", go_version: "" };
  document.title = program.exe.split("/").pop() + " — gotracer report";
  const wall = (recording.started_ns + recording.wall_offset_ns) / 1e6;
  const when = recording.wall_offset_ns ? new Date(wall).toISOString().replace("T", " ").slice(0, 19) + " UTC" : "";
  const about = ["process " + recording.pid, program.go_version, recording.host && "on " + recording.host,
    recording.kernel && "Linux " + recording.kernel, when].filter(Boolean).join(" · ");
  const head = at("head");
  head.append(element("h1", {}, program.exe), element("p", { class: "sub" }, about));
  const ends = { exited: "The process exited.", full: "There was no more space for the recording.",
    rotated: "The next file goes on.", replaced: "The process replaced its program." };
  if (!end) head.append(element("p", { class: "bad" }, "The recording has no end: whoever wrote it was killed, or still writes."));
  else if (ends[end.why]) head.append(element("p", { class: "sub" }, ends[end.why]));
  if (totals.lost) head.append(element("p", { class: "bad" }, count(totals.lost) + " events were lost: every figure is a lower bound."));
  for (const damage of report.damages) {
    head.append(element("p", { class: "bad" }, "The file is damaged at byte " + count(damage.offset) + ": " + damage.what + "."));
  }
  for (const detail of report.details) {
    head.append(element("p", { class: "sub" }, "From " + duration(detail.at_ns) + " on, recorded with detail " + detail.level + "."));
  }
  const cards = element("div", { class: "cards" });
  for (const [value, label] of [[duration(totals.duration_ns), "recorded"], [count(totals.events), "events"],
    [count(totals.created), "created"], [count(totals.exited), "exited"], [count(totals.live), "live at the end"],
    [count(totals.system), "the runtime's own"], [count(totals.blocked), "blocks"], [count(totals.lost), "lost"]]) {
    cards.append(element("div", { class: "card" }, element("b", {}, value), element("span", {}, label)));
  }
  head.append(cards);
}

// A round number of steps that a person would choose.
function ticks(most, wanted) {
  const raw = most / wanted || 1;
  const ten = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= raw);
  const all = [];
  for (let value = 0; value <= most * 1.0001; value += step) all.push(value);
  return all;
}

const tip = at("tip");
function showTip(event, title, lines) {
  tip.replaceChildren(element("div", { class: "place" }, title), ...lines.map(([hue, text]) =>
    element("div", {}, hue ? element("i", { style: "background:" + hue }) : null, text)));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - box.height - 8) + "px";
}

// A plot over time: series stacked upon each other, or each a line of its own.
function plot(target, series, stacked, height = 220) {
  const [width, left, bottom] = [1190, 46, 20];
  const { interval_ns } = report.timeline;
  const n = report.timeline.buckets.length;
  const sums = Array.from({ length: n }, (_, i) => series.reduce((sum, s) => sum + s.values[i], 0));
  const most = Math.max(1, ...(stacked ? sums : series.flatMap((s) => s.values)));
  const x = (i) => left + (width - left) * (n > 1 ? i / (n - 1) : 0);
  const y = (value) => (height - bottom) * (1 - value / most) + 4;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height + 6}`, role: "img" });
  for (const value of ticks(most, 4)) {
    svg.append(shape("line", { class: "grid", x1: left, x2: width, y1: y(value), y2: y(value) }),
      shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  const span = interval_ns * Math.max(1, n - 1);
  const [size, unit] = [[3600e9, "h"], [60e9, "min"], [1e9, "s"], [1e6, "ms"], [1e3, "µs"]].find(([size]) => span >= 2 * size) || [1e6, "ms"];
  for (const value of ticks(span / size, 10)) {
    const to = x((value * size) / interval_ns);
    svg.append(shape("text", { x: to, y: height + 2, "text-anchor": value ? "middle" : "start" }, +value.toPrecision(6) + " " + unit));
  }
  const below = new Array(n).fill(0);
  series.forEach((s) => {
    if (stacked) {
      const top = s.values.map((value, i) => below[i] + value);
      const forth = top.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
      const back = below.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`).reverse();
      svg.append(shape("path", { class: "area", fill: s.colour, "fill-opacity": 0.85, d: "M" + forth.concat(back).join("L") + "Z" }));
      top.forEach((value, i) => { below[i] = value; });
    } else {
      const points = s.values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
      svg.append(shape("path", { class: "line", fill: "none", stroke: s.colour, "stroke-width": 1.6, d: "M" + points.join("L") }));
    }
  });
  const cross = shape("line", { class: "cross", y1: 4, y2: height - bottom + 4, visibility: "hidden" });
  svg.append(cross);
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect();
    const i = Math.round(((event.clientX - box.left) / box.width * width - left) / (width - left) * (n - 1));
    if (i < 0 || i >= n) return;
    cross.setAttribute("x1", x(i)); cross.setAttribute("x2", x(i)); cross.setAttribute("visibility", "visible");
    const shown = series.filter((s) => s.values[i]).map((s) => [s.colour, count(s.values[i]) + " " + s.name]).reverse();
    showTip(event, duration(i * interval_ns), shown.length ? shown : [[null, "nothing"]]);
  });
  svg.addEventListener("mouseleave", () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); });
  const legend = element("div", { class: "legend" }, ...series.map((s) =>
    element("span", {}, element("i", { style: "background:" + s.colour }), s.name)));
  target.replaceChildren(svg, legend);
}

function live() {
  const { buckets, sites } = report.timeline;
  const total = buckets.map((b) => b.live_runnable + b.live_running + b.live_blocked);
  const bySite = sites.filter((s) => s.live.some((n) => n > 0)).map((s, i) =>
    ({ name: s.start + (where(s.site) ? " at " + where(s.site) : ""), colour: colour(i), values: s.live.map((n) => Math.max(0, n)) }));
  const others = total.map((n, i) => Math.max(0, n - bySite.reduce((sum, s) => sum + s.values[i], 0)));
  if (others.some((n) => n > 0)) bySite.push({ name: "others", colour: colour(8), values: others });
  const byState = [["blocked", "live_blocked", 0], ["running", "live_running", 2], ["runnable", "live_runnable", 4]].map(
    ([name, key, n]) => ({ name, colour: colour(n), values: buckets.map((b) => b[key]) }));
  const views = { "by site": bySite, "by state": byState };
  const buttons = Object.entries(views).map(([name, series]) => element("button", { type: "button", onclick: () => show(name, series) }, name));
  function show(name, series) {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.textContent === name)));
    plot(at("live"), series, true, 260);
  }
  at("live-choice").append(...buttons);
  show("by site", bySite);
}

function events() {
  const { buckets } = report.timeline;
  const series = [["created", 2], ["exited", 1], ["blocked", 0]].map(([name, n]) =>
    ({ name, colour: colour(n), values: buckets.map((b) => b[name]) }));
  if (report.totals.lost) series.push({ name: "lost", colour: "var(--bad)", values: buckets.map((b) => b.lost) });
  plot(at("events"), series, false, 160);
  at("events").prepend(element("p", { class: "note" }, "Per " + duration(report.timeline.interval_ns) + "."));
}

// A table that sorts by the column whose head is clicked, and shows the first rows first.
function table(target, columns, rows, first = 15) {
  let [sorted, rising, all] = [null, false, false];
  const body = element("tbody");
  const heads = columns.map((column) => element("th", { class: column.left ? "left" : null, onclick: () => {
    rising = sorted === column ? !rising : Boolean(column.left);
    sorted = column;
    draw();
  } }, column.name));
  const more = element("button", { class: "more", type: "button", onclick: () => { all = true; draw(); } });
  function draw() {
    const order = [...rows];
    if (sorted) order.sort((a, b) => {
      const [p, q] = [sorted.value(a), sorted.value(b)];
      const sign = typeof p === "string" ? p.localeCompare(q) : (p ?? -1) - (q ?? -1);
      return rising ? sign : -sign;
    });
    heads.forEach((head, i) => columns[i] === sorted ? head.setAttribute("aria-sort", rising ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
    body.replaceChildren(...order.slice(0, all ? order.length : first).map((row) => element("tr", {}, ...columns.map((column) => {
      const cell = element("td", { class: column.left ? "left" : null }, column.cell ? column.cell(row) : count(column.value(row)));
      if (column.bar) {
        const most = Math.max(1, ...rows.map(column.value));
        cell.append(element("span", { class: "bar", style: `width:${(100 * column.value(row) / most).toFixed(1)}%` }));
      }
      return cell;
    }))));
    more.textContent = "all " + count(rows.length);
    more.hidden = all || rows.length <= first;
  }
  draw();
  if (!rows.length) target.append(element("p", { class: "note" }, "There are none."));
  else target.append(element("div", { class: "scroll" }, element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body)), more);
}

const known = { seen: "", same_goroutine: "Stack of another wait of the same goroutine, for the same reason.", no: "Stack not read: no reading met this goroutine in such a wait." };
function stack(row) {
  const calls = row.stack.map((call) => element("div", {}, place(call)));
  const origin = element("div", { class: "place" }, "created at ", place(row.site));
  const note = known[row.known] ? element("div", { class: "note" }, known[row.known]) : null;
  // The runtime's own innermost calls say no more than the reason does.
  const own = row.stack.find((call) => !/^(runtime|internal\/runtime|sync|internal\/sync|internal\/poll|time)\./.test(call.function) && !/^(internal\/poll)\//.test(call.function));
  return element("details", {}, element("summary", {}, own ? place(own) : row.start), element("div", { class: "stack" }, ...calls, origin), note);
}

function tables() {
  table(at("sites"), [
    { name: "live", value: (r) => r.live, bar: true },
    { name: "created", value: (r) => r.created },
    { name: "exited", value: (r) => r.exited },
    { name: "before", value: (r) => r.first_seen },
    { name: "blocks", value: (r) => r.blocked },
    { name: "blocked", value: (r) => r.blocked_ns, cell: (r) => duration(r.blocked_ns) },
    { name: "half lived less than", value: (r) => r.median_life_ns, cell: (r) => duration(r.median_life_ns) },
    { name: "created at", left: true, value: (r) => r.site.function, cell: (r) => place(r.site) },
    { name: "runs", left: true, value: (r) => r.start, cell: (r) => r.start + (r.system ? " (runtime)" : "") },
  ], report.sites);
  table(at("reasons"), [
    { name: "blocked", value: (r) => r.blocked_ns, cell: (r) => duration(r.blocked_ns), bar: true },
    { name: "blocks", value: (r) => r.blocks },
    { name: "median below", value: (r) => r.median_ns, cell: (r) => duration(r.median_ns) },
    { name: "p99 below", value: (r) => r.p99_ns, cell: (r) => duration(r.p99_ns) },
    { name: "wait now", value: (r) => r.waiting },
    { name: "reason", left: true, value: (r) => r.reason, cell: (r) => r.reason },
  ], report.reasons, 12);
  table(at("waits"), [
    { name: "blocked", value: (r) => r.blocked_ns, cell: (r) => duration(r.blocked_ns), bar: true },
    { name: "blocks", value: (r) => r.blocks },
    { name: "wait now", value: (r) => r.waiting },
    { name: "reason", left: true, value: (r) => r.reason, cell: (r) => r.reason },
    { name: "where", left: true, value: (r) => r.start, cell: stack },
  ], report.waits, 12);
  table(at("longest"), [
    { name: "blocked", value: (r) => r.ns, cell: (r) => duration(r.ns) + (r.goes_on ? ", goes on" : "") },
    { name: "from", value: (r) => r.at_ns, cell: (r) => duration(r.at_ns) },
    { name: "goroutine", value: (r) => r.goid, cell: (r) => String(r.goid) },
    { name: "reason", left: true, value: (r) => r.reason, cell: (r) => r.reason },
    { name: "where", left: true, value: (r) => r.start, cell: stack },
  ], report.longest, 10);
}

function lifetimes() {
  const rows = report.lifetimes;
  if (!rows.length) return at("lifetimes").append(element("p", { class: "note" }, "There are none."));
  const [width, height, bottom, left] = [560, 210, 34, 46];
  const most = Math.max(...rows.map((row) => row.count));
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const y = (value) => 6 + (height - bottom - 6) * (1 - value / most);
  for (const value of ticks(most, 3)) {
    svg.append(shape("line", { class: "grid", x1: left, x2: width, y1: y(value), y2: y(value) }),
      shape("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  const step = (width - left) / rows.length;
  const every = Math.ceil(rows.length / 9);
  rows.forEach((row, i) => {
    const bar = shape("rect", { class: "life", x: left + i * step + 1, width: Math.max(1, step - 2), y: y(row.count), height: height - bottom - y(row.count), fill: colour(0), rx: 1.5 });
    bar.addEventListener("mousemove", (event) => showTip(event, duration(row.from_ns) + " to " + duration(2 * row.from_ns), [[null, count(row.count) + " goroutines"]]));
    bar.addEventListener("mouseleave", () => { tip.hidden = true; });
    svg.append(bar);
    if (i % every === 0) svg.append(shape("text", { x: left + i * step, y: height - bottom + 15, "text-anchor": "middle" }, duration(row.from_ns)));
  });
  at("lifetimes").append(svg);
}

function tree(node, depth) {
  const line = [element("span", { class: "n" }, count(node.created)), element("span", { class: "place" }, node.live ? ` (${count(node.live)} live) ` : " "),
    node.start + " ", element("span", { class: "place", title: node.site.file + ":" + node.site.line }, "at " + node.site.function + " " + where(node.site) + (node.again ? " — as above" : ""))];
  if (!node.creates.length) return element("div", { class: "leaf" }, ...line);
  const open = depth < 3 && node.creates.length <= 20;
  return element("details", open ? { open: "" } : {}, element("summary", {}, ...line), ...node.creates.map((child) => tree(child, depth + 1)));
}

header();
live();
events();
tables();
lifetimes();
at("creators").append(element("div", { class: "tree" }, ...report.creators.map((node) => tree(node, 0))));
at("foot").append("Written by gotracer " + report.recording.gotracer + ". This page is complete: it loads nothing.");
document.body.dataset.ready = "true";
