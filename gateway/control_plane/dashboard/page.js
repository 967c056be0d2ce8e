"use strict";
const $ = (id) => document.getElementById(id);
const COLORS = 8;
const state = { key: sessionStorage.getItem("tollway-key") || "", paused: false, data: null, abort: null, colors: new Map() };

// `tollway serve` prints an address with the key in its fragment, which is never sent. Take it out of
// the address bar and the history at once.
const given = new URLSearchParams(location.hash.slice(1)).get("key");
if (given) { state.key = given; history.replaceState(null, "", location.pathname + location.search); }

// -- building the page: only elements, never markup from data

function h(tag, attributes, ...children) {
  const svg = ["svg", "path", "line", "text", "rect", "title", "circle", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [property, v] of Object.entries(value)) node.style.setProperty(property, v);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(9)) if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}

function put(id, ...children) {
  const section = $(id), focused = document.activeElement, key = section.contains(focused) ? focused.dataset.key : null;
  const open = new Set([...section.querySelectorAll("details[open]")].map((d) => d.dataset.key));
  section.replaceChildren(...children.flat(9).filter(Boolean));
  for (const d of section.querySelectorAll("details")) if (open.has(d.dataset.key)) d.open = true;
  if (key) section.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

function head(id, title, note, promql, csv) {
  return h("div", { class: "head" }, h("h2", { id: id + "-h" }, title), note && h("p", null, note),
    h("span", null, promql && promqlButton(id, promql), csv && h("button", { type: "button", "data-key": id + "-csv", onclick: () => download(id, csv()) }, "CSV")));
}

function promqlButton(key, promql) {
  const button = h("button", { type: "button", "data-key": key + "-promql", title: promql, "aria-label": "Copy as PromQL: " + promql, onclick: async () => {
    try { await navigator.clipboard.writeText(promql); say("copied: " + promql); }
    catch { prompt("PromQL", promql); }
  } }, "PromQL");
  return button;
}

// Clients choose the names and values of tags: a text that a spreadsheet would take for a formula gets an apostrophe.
const inert = (v) => typeof v === "string" && /^ *[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(v) ? "'" + v : v;

function download(name, rows) {
  const quote = (v) => /[",\r\n]/.test(v = v === null || v === undefined ? "" : String(inert(v))) ? '"' + v.replaceAll('"', '""') + '"' : v;
  const url = URL.createObjectURL(new Blob([rows.map((row) => row.map(quote).join(",")).join("\n") + "\n"], { type: "text/csv" }));
  h("a", { href: url, download: `tollway-${name}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// -- formatting of figures

const isNumber = (v) => typeof v === "number" && isFinite(v);
function usd(v) {
  if (!isNumber(v)) return "–";
  const a = Math.abs(v);
  if (a === 0) return "$0";
  if (a >= 0.01) return (v < 0 ? "−$" : "$") + a.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: a >= 1000 ? 0 : a >= 1 ? 2 : 4 });
  return (v < 0 ? "−$" : "$") + a.toPrecision(3).replace(/e-(\d+)/, "e−$1");
}
const share = (v, digits = 1) => isNumber(v) ? (100 * v).toFixed(digits) + " %" : "–";
const count = (v) => isNumber(v) ? Math.round(v).toLocaleString("en-US") : "–";
const ms = (v) => !isNumber(v) ? "–" : v < 1e-3 ? Math.round(v * 1e6) + " µs" : v < 1 ? (v * 1e3).toPrecision(3) + " ms" : v.toFixed(1) + " s";
const clock = (s) => new Date(s * 1000).toLocaleTimeString();
const when = (s) => new Date(s * 1000).toLocaleString(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
function lasting(s) {
  for (const [unit, length] of [["days", 86400], ["hours", 3600], ["minutes", 60]]) if (s >= 2 * length) return Math.round(s / length) + " " + unit;
  return Math.round(s) + " seconds";
}
function color(name) {
  if (!state.colors.has(name)) state.colors.set(name, `var(--c${state.colors.size % COLORS})`);
  return state.colors.get(name);
}
function selector(more) {
  const parts = [state.data.routeAsked && `route="${state.data.routeAsked}"`, state.data.tenantAsked && `tenant="${state.data.tenantAsked}"`, more].filter(Boolean);
  return parts.length ? `{${parts.join(",")}}` : "";
}
const range = () => ({ "1h": "1h", "6h": "6h", "1d": "1d", "7d": "7d", "30d": "30d" })[$("range").value];
const say = (text, kind) => { const s = $("status"); s.textContent = text; if (kind !== undefined) s.className = kind; };

// -- sections

function tile(title, value, note, promql, kind, raw) {
  return h("div", { class: "tile" }, h("h2", null, title, promql && promqlButton("tile-" + title, promql)), h("output", { class: kind || "", "data-value": raw }, value), note && h("p", null, note));
}

// The accuracy that savings cost (-) or gained (+) against the backend that they are compared with.
function points(saved) {
  if (!isNumber(saved.points)) return saved.declared ? "points of accuracy unknown without labels" : "points of accuracy unknown: no declared accuracy";
  const [mean, low, high] = [saved.points, ...saved.points_interval].map((v) => (v < 0 ? "\u2212" : "+") + Math.abs(100 * v).toFixed(1));
  return `${mean} points of accuracy (${low} to ${high})`;
}
const pointsClass = (saved) => isNumber(saved.points) ? saved.points_interval[1] < 0 ? "bad" : saved.points_interval[0] > 0 ? "good" : "" : "soft";

function figures(d) {
  const s = d.spend, sum = (pick) => d.routes.reduce((total, r) => total + (pick(r) || 0), 0);
  const accurate = d.routes.filter((r) => r.savings.most_accurate), fixed = d.routes.filter((r) => r.savings.best_fixed);
  const would = accurate.reduce((t, r) => t + r.savings.most_accurate.would_have_cost_usd, 0), spent = accurate.reduce((t, r) => t + r.usd, 0);
  const wouldFixed = fixed.reduce((t, r) => t + r.savings.best_fixed.would_have_cost_usd, 0), spentFixed = fixed.reduce((t, r) => t + r.usd, 0);
  const labels = sum((r) => r.labels), right = sum((r) => r.labels * (r.accuracy || 0));
  const filtered = Boolean(d.tenantAsked);
  const below = d.routes.filter((r) => isNumber(r.floor) && isNumber(r.accuracy) && r.accuracy_interval[1] < r.floor);
  const better = filtered ? [] : d.routes.filter((r) => r.savings.better_fixed);
  put("better", better.length ? [h("h2", null, "A fixed backend would have done better"), better.map((r) => h("p", null, r.savings.better_fixed.text))] : []);
  put("figures",
    tile("Spend", usd(s.usd), `${usd(s.usd / d.range_s * 3600)} per hour`, `sum(increase(tollway_cost_usd_total${selector()}[${range()}]))`, "", s.usd),
    tile("Cost per answer", usd(s.per_request_usd), `${count(s.answered)} answered`, `sum(increase(tollway_cost_usd_total${selector()}[${range()}])) / sum(increase(tollway_requests_total${selector('outcome=~"ok|fallback"')}[${range()}]))`),
    !filtered && tile("Savings", would ? share(1 - spent / would) : "–", would ? `${usd(would - spent)} less than always using the most accurate backend; ${accurate.map((r) => `${r.name}: ${points(r.savings.most_accurate)} vs. ${r.savings.most_accurate.backend}`).join("; ")}` : "no requests yet", `1 - sum(increase(tollway_cost_usd_total${selector()}[${range()}])) / sum(increase(tollway_counterfactual_cost_usd_total${selector('backend="MOST ACCURATE"')}[${range()}]))`, would && spent < would ? "good" : ""),
    !filtered && tile("Savings vs. best fixed backend", wouldFixed ? share(1 - spentFixed / wouldFixed) : "–", wouldFixed ? fixed.map((r) => `${r.name}: always ${r.savings.best_fixed.backend}, ${points(r.savings.best_fixed)}`).join("; ") : "no single backend is known to be accurate enough", null, wouldFixed && spentFixed < wouldFixed ? "good" : ""),
    !filtered && tile("Accuracy", labels ? share(right / labels, 2) : "–", labels ? `${count(labels)} labels${below.length ? "; below the floor: " + below.map((r) => r.name).join(", ") : ""}` : "send feedback to measure it", `sum(increase(tollway_answer_quality_total${selector()}[${range()}])) / sum(increase(tollway_answers_total${selector()}[${range()}]))`, below.length ? "bad" : "", labels ? right / labels : null),
    tile("Refused", count(s.over_budget), `by budgets; ${count(s.failed)} requests failed`, `sum(increase(tollway_requests_total${selector('outcome="over_budget"')}[${range()}]))`, s.failed ? "warn" : "", s.over_budget),
    !filtered && tile("Changed by budgets", count(s.changed_by_pace + s.changed_by_budget), `${count(s.changed_by_pace)} choices by pacing, ${count(s.changed_by_budget)} by refusals of a budget`, `sum by (by) (increase(tollway_choices_changed_total${selector()}[${range()}]))`));
}

// Without this, the first hour of a new gateway would be a single bar at the edge.
function cropped(series) {
  const all = Object.values(series.spend_usd), n = all[0]?.length || 0;
  let first = 0;
  while (first < n - 36 && all.every((values) => !values[first])) first++;
  return { ...series, start: series.start + first * series.step_s, spend_usd: Object.fromEntries(Object.entries(series.spend_usd).map(([name, values]) => [name, values.slice(first)])) };
}

function spend(d) {
  const series = cropped(d.series), names = Object.keys(series.spend_usd).sort((a, b) => total(series.spend_usd[b]) - total(series.spend_usd[a]));
  const csv = () => [["time", ...names.map((n) => n + "_usd")], ...times(series).map((t, i) => [new Date(t * 1000).toISOString(), ...names.map((n) => series.spend_usd[n][i])])];
  put("spend", head("spend", "Spend by backend", `${usd(d.spend.usd)} in total; each bar covers ${lasting(series.step_s)}`, `sum by (backend) (increase(tollway_cost_usd_total${selector()}[${Math.max(60, series.step_s)}s]))`, csv),
    names.length ? bars(series, names) : h("p", { class: "empty" }, "No spend in this period."),
    h("ul", { class: "legend" }, names.map((n) => h("li", null, h("i", { style: { background: color(n) } }), `${n} ${usd(total(series.spend_usd[n]))} (${share(total(series.spend_usd[n]) / (d.spend.usd || 1), 0)})`))));
}
const total = (values) => values.reduce((a, b) => a + b, 0);
const times = (series) => Array.from({ length: Object.values(series.spend_usd)[0]?.length || 0 }, (_, i) => series.start + i * series.step_s);

function bars(series, names) {
  // As wide as the screen of a phone, so that the text is not scaled down.
  const W = Math.min(720, Math.max(320, innerWidth - 60)), H = 220, left = 58, bottom = 22, n = series.spend_usd[names[0]].length;
  const tops = Array.from({ length: n }, (_, i) => names.reduce((t, name) => t + series.spend_usd[name][i], 0));
  const most = nice(Math.max(...tops) || 1), x = (i) => left + i * (W - left) / n, y = (v) => 10 + (H - bottom - 10) * (1 - v / most);
  const marks = [0, .25, .5, .75, 1].map((f) => h("g", null, h("line", { class: "grid", x1: left, x2: W, y1: y(f * most), y2: y(f * most) }), h("text", { x: left - 6, y: y(f * most) + 4, "text-anchor": "end" }, usd(f * most))));
  const every = Math.ceil(n * 110 / W), labels = [];
  for (let i = 0; i < n; i += every) labels.push(h("text", { x: x(i), y: H - 4 }, series.step_s >= 3600 ? when(series.start + i * series.step_s) : clock(series.start + i * series.step_s).replace(/:\d\d( |$)/, "$1")));
  const base = new Array(n).fill(0), paths = names.map((name) => {
    let path = "";
    series.spend_usd[name].forEach((v, i) => {
      if (v > 0) path += `M${x(i).toFixed(1)} ${y(base[i]).toFixed(1)}V${y(base[i] + v).toFixed(1)}h${Math.max(.8, (W - left) / n - .6).toFixed(1)}V${y(base[i]).toFixed(1)}z`;
      base[i] += v;
    });
    return h("path", { d: path, fill: color(name) }, h("title", null, name));
  });
  return h("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `Spend over time, by backend; at most ${usd(Math.max(...tops))} in ${lasting(series.step_s)}. The CSV button downloads the figures.` }, marks, paths, labels);
}
function nice(v) { const p = 10 ** Math.floor(Math.log10(v)); return [1, 2, 2.5, 5, 10].map((m) => m * p).find((m) => m >= v); }

function budgets(d) {
  const rows = d.budgets.map((b) => {
    const used = (b.spent_nano + b.carried_nano) / (b.limit_nano || 1), held = b.held_nano / (b.limit_nano || 1), kind = used >= 1 ? "bad" : used >= .8 ? "warn" : "good";
    const forecast = isNumber(b.forecast_usd) ? b.forecast_usd / b.limit_usd : null;
    const scope = Object.entries(b.scope).map(([k, v]) => `${k} ${typeof v === "object" ? Object.entries(v).map((t) => t.join("=")).join(", ") : v}`).join(", ") || "all calls";
    return h("div", { class: "budget" },
      h("div", null, h("strong", null, b.name), h("p", { class: "soft" }, `${scope}; ${b.enforcement}, ${b.window === "lifetime" ? "lifetime" : "per " + b.window}`)),
      h("div", null,
        h("div", { class: "track", role: "img", "aria-label": `${b.name}: ${share(used)} of ${usd(b.limit_usd)} spent` }, h("div", { class: "bar" },
          h("i", { style: { width: Math.min(100, 100 * used) + "%", background: `var(--${kind})` } }), h("i", { style: { width: Math.max(0, Math.min(100 - 100 * used, 100 * held)) + "%", background: "var(--held)" }, title: "leased" })),
          isNumber(forecast) && h("b", { style: { left: Math.min(99.6, 100 * forecast) + "%" }, title: "forecast for the end of the window" })),
        h("p", null, h("span", { class: kind, "data-value": b.spent_usd }, `${usd(b.spent_usd)} of ${usd(b.limit_usd)} (${share(used)})`), b.overdraft_nano > 0 && h("span", { class: "bad" }, `, overdraft ${usd(b.overdraft_usd)}`),
          isNumber(b.forecast_usd) && `; forecast ${usd(b.forecast_usd)} by ${when(b.resets_at)}`, isNumber(b.burn) && ` (${b.burn.toFixed(1)} times the even rate)`,
          isNumber(b.runs_out_in_s) && h("strong", { class: "bad" }, `; runs out in ${lasting(b.runs_out_in_s)}`))));
  });
  const csv = () => [["budget", "window", "enforcement", "limit_usd", "spent_usd", "held_usd", "free_usd", "overdraft_usd", "forecast_usd"], ...d.budgets.map((b) => [b.name, b.window, b.enforcement, b.limit_usd, b.spent_usd, b.held_usd, b.free_usd, b.overdraft_usd, b.forecast_usd])];
  put("budgets", head("budgets", "Budgets", "the marker shows the forecast", "max by (budget) (tollway_budget_spent_usd) / max by (budget) (tollway_budget_limit_usd)", csv), rows.length ? rows : h("p", { class: "empty" }, "No budgets are configured, so nothing is limited."));
}

function routes(d) {
  const rows = d.routes.map((r) => {
    const asked = total(Object.values(r.shares)) || 1, saved = r.savings.most_accurate;
    return h("tr", null,
      h("td", null, h("strong", null, r.name), h("p", { class: "soft" }, r.objective.replace("_", " "), isNumber(r.figures.floor_guarded) && r.figures.floor_guarded > 0 && h("span", { class: "warn" }, " on its baseline")),
        Object.entries(r.up).filter(([, up]) => !up).map(([name]) => h("p", { class: "bad" }, name + " is down"))),
      h("td", { class: "wide" }, accuracy(r)),
      h("td", { class: "n" }, usd(r.usd)), h("td", { class: "n" }, usd(r.per_request_usd)), h("td", { class: "n" }, usd(r.usd_per_correct)),
      h("td", { class: "n" }, saved ? h("span", { class: saved.saved_usd > 0 ? "good" : "bad" }, share(saved.saved_share)) : "–", saved && h("p", { class: "soft" }, "vs. always " + saved.backend), saved && h("p", { class: pointsClass(saved) }, points(saved)), r.savings.better_fixed && h("p", { class: "bad" }, `always ${r.savings.better_fixed.backend} would have done better`), r.cache_saved_usd > 0 && h("p", { class: "good" }, "cache " + usd(r.cache_saved_usd))),
      h("td", { class: "wide" }, h("div", { class: "bar", role: "img", "aria-label": Object.entries(r.shares).map(([n, v]) => `${n} ${share(v / asked, 0)}`).join(", ") || "no calls" }, Object.entries(r.shares).map(([n, v]) => h("i", { style: { width: 100 * v / asked + "%", background: color(n) }, title: `${n} ${share(v / asked)}` }))),
        h("ul", { class: "legend" }, Object.entries(r.shares).map(([n, v]) => h("li", null, h("i", { style: { background: color(n) } }), `${n} ${share(v / asked, 0)}`)))),
      h("td", { class: "n" }, ms(r.upstream_s.p50), h("p", { class: "soft" }, "p95 " + ms(r.upstream_s.p95))),
      h("td", { class: "n" }, ms(r.gateway_s.p50), h("p", { class: "soft" }, "p99 " + ms(r.gateway_s.p99))));
  });
  const csv = () => [["route", "usd", "answered", "usd_per_request", "accuracy", "accuracy_low", "accuracy_high", "labels", "floor", "usd_per_correct"], ...d.routes.map((r) => [r.name, r.usd, r.answered, r.per_request_usd, r.accuracy, r.accuracy_interval?.[0], r.accuracy_interval?.[1], r.labels, r.floor, r.usd_per_correct])];
  put("routes", head("routes", "Routes", "", `sum by (route, backend) (increase(tollway_attempts_total${selector()}[${range()}]))`, csv),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Routes, scrolls horizontally" }, h("table", null, h("thead", null, h("tr", null, ["Route", "Accuracy", "Spend", "Per answer", "Per correct answer", "Savings", "Calls by backend", "Backend latency", "Gateway time"].map((t, i) => h("th", { scope: "col", class: [2, 3, 4, 5, 7, 8].includes(i) ? "n" : "" }, t)))), h("tbody", null, rows))));
}

function devices(d) {
  if (!d.devices.length) return put("devices");
  const rows = d.devices.map((v) => {
    const names = Object.entries(v.backends);
    return h("tr", null,
      h("td", null, h("strong", null, v.name), !v.price_known && h("p", { class: "bad" }, "its price cannot be read")),
      h("td", { class: "n" }, usd(v.usd_per_hour)),
      h("td", { class: "wide" }, h("div", { class: "bar", role: "img", "aria-label": `${share(v.utilization)} used` }, h("i", { style: { width: 100 * v.utilization + "%", background: "var(--c1)" } })), h("p", { class: "soft" }, share(v.utilization))),
      h("td", { class: "n" }, usd(v.bill_usd)), h("td", { class: "n" }, usd(v.bill_usd - v.unallocated_usd)),
      h("td", { class: "n" }, h("span", { class: v.unallocated_usd > .1 * v.bill_usd ? "warn" : "" }, usd(v.unallocated_usd))),
      h("td", { class: "wide" }, names.map(([n, b]) => h("p", null, n, h("span", { class: "soft" }, ` ${usd(b.second_usd)} a second, ${share(b.idle_share, 0)} of it idle time; charged ${usd(b.charged_usd)}`)))));
  });
  const csv = () => [["device", "backend", "usd_per_hour", "utilization", "bill_usd", "unallocated_usd", "second_usd", "idle_share", "charged_usd"], ...d.devices.flatMap((v) => Object.entries(v.backends).map(([n, b]) => [v.name, n, v.usd_per_hour, v.utilization, v.bill_usd, v.unallocated_usd, b.second_usd, b.idle_share, b.charged_usd]))];
  put("devices", head("devices", "Devices", "amounts since the gateway started", "max by (device) (tollway_device_utilization_ratio)", csv),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Devices, scrolls horizontally" }, h("table", null, h("thead", null, h("tr", null, ["Device", "Per hour", "Used", "Cost", "Charged to calls", "Not allocated", "Backends"].map((t, i) => h("th", { scope: "col", class: [1, 3, 4, 5].includes(i) ? "n" : "" }, t)))), h("tbody", null, rows))));
}

function replicas(d) {
  if (!d.replicas.length) return put("replicas");
  const rows = d.replicas.map((r) => h("tr", null,
    h("td", null, h("strong", null, r.name)),
    h("td", { class: "n" }, count(r.recommended), r.wanted > r.recommended && h("p", { class: "warn" }, `${count(r.wanted)} needed`)),
    h("td", { class: "n" }, isNumber(r.set) ? count(r.set) : "–"),
    h("td", { class: "n" }, r.coming < r.recommended ? count(r.coming) : "–"),
    h("td", { class: "n" }, isNumber(r.replica_s) ? (r.replica_s / 3600).toFixed(1) : "–"),
    h("td", { class: "n" }, isNumber(r.idle_share) ? share(r.idle_share, 0) : "–"),
    h("td", { class: "n" }, isNumber(r.cost_usd) ? usd(r.cost_usd) : "–", isNumber(r.cost_usd) && isNumber(r.idle_share) && h("p", { class: "soft" }, usd(r.cost_usd * r.idle_share) + " idle")),
    h("td", { class: "n" }, isNumber(r.forecast_error) ? share(r.forecast_error, 0) : "–")));
  const csv = () => [["backend", "recommended", "needed", "set", "coming", "replica_hours", "idle_share", "usd", "forecast_error"], ...d.replicas.map((r) => [r.name, r.recommended, r.wanted, r.set, r.coming, isNumber(r.replica_s) ? r.replica_s / 3600 : null, r.idle_share, r.cost_usd, r.forecast_error])];
  put("replicas", head("replicas", "Replicas", "hours and cost since this gateway began to lead; soon: within an hour if the load stays", "max by (backend) (tollway_backend_replicas_recommended)", csv),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Replicas, scrolls horizontally" }, h("table", null, h("thead", null, h("tr", null, ["Backend", "Recommended", "Set", "Soon", "Replica-hours", "Idle", "Cost", "Forecast off by"].map((t, i) => h("th", { scope: "col", class: i ? "n" : "" }, t)))), h("tbody", null, rows))));
}

function rollouts(d) {
  if (!d.rollouts.length) return put("rollouts");
  const kinds = { rolled_back: "bad", aborted: "warn", promoted: "good", retired: "good" }, num = (v) => isNumber(v) ? Number(v.toPrecision(3)) : "–";
  const measure = (r, c) => {
    const m = r.measures[c.metric];
    if (!m) return h("p", { class: "soft" }, `${c.metric}: nothing observed yet`);
    const against = Math.max(m.log_evidence, m.over_limit, 0) / c.alarm;
    return h("p", null, `${c.metric.replaceAll("_", " ")} ${num(m.candidate)} against ${num(m.stable)}`, h("span", { class: "soft" }, ` difference ${num(m.difference)} (${num(m.low)} to ${num(m.high)}), ${count(m.candidate_count)} observations`),
      h("div", { class: "bar", role: "img", "aria-label": `${share(Math.min(against, 1), 0)} of the evidence that stops it` }, h("i", { style: { width: 100 * Math.min(against, 1) + "%", background: `var(--${against > .7 ? "bad" : "c1"})` } })));
  };
  const rows = d.rollouts.map((r) => h("tr", null,
    h("td", null, h("strong", null, r.name), h("p", { class: "soft" }, `${r.strategy}, ${r.candidate} for ${r.backend}`)),
    h("td", null, h("span", { class: kinds[r.phase] || "" }, r.phase.replaceAll("_", " ")), r.step !== null && h("p", { class: "soft" }, `step ${r.step + 1} of ${r.steps.length}`), r.why && h("p", { class: "soft" }, r.why)),
    h("td", { class: "n" }, share(r.weight, 0)),
    h("td", { class: "wide" }, r.phase === "idle" ? "" : r.criteria.map((c) => measure(r, c))),
    h("td", { class: "wide" }, r.waiting.map((w) => h("p", null, w)))));
  put("rollouts", head("rollouts", "Rollouts", "a bar is the evidence against a candidate; full, it is rolled back", "tollway_rollout_weight", null),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rollouts, scrolls horizontally" }, h("table", null, h("thead", null, h("tr", null, ["Rollout", "Phase", "Weight", "Candidate against stable", "Waits for"].map((t, i) => h("th", { scope: "col", class: i === 2 ? "n" : "" }, t)))), h("tbody", null, rows))));
}

function accuracy(r) {
  if (!isNumber(r.accuracy)) return h("span", { class: "soft" }, "no labels" + (isNumber(r.floor) ? `; floor ${share(r.floor, 0)}` : ""));
  const [low, high] = r.accuracy_interval, from = Math.max(0, Math.min(low, r.floor ?? 1) - .05), x = (v) => 4 + 152 * (v - from) / (1 - from);
  const kind = isNumber(r.floor) ? (high < r.floor ? "bad" : low < r.floor ? "warn" : "good") : "";
  return [h("span", { class: kind }, share(r.accuracy, 2)), h("span", { class: "soft" }, ` (${share(low)} to ${share(high)})`),
    h("svg", { width: 160, height: 16, role: "img", "aria-label": isNumber(r.floor) ? `floor ${share(r.floor)}` : "interval" },
      h("line", { class: "grid", x1: 4, x2: 156, y1: 8, y2: 8 }), h("line", { x1: x(low), x2: x(high), y1: 8, y2: 8, stroke: `var(--${kind || "c1"})`, "stroke-width": 4 }), h("circle", { cx: x(r.accuracy), cy: 8, r: 4, fill: `var(--${kind || "c1"})` }),
      isNumber(r.floor) && h("line", { x1: x(r.floor), x2: x(r.floor), y1: 1, y2: 15, stroke: "var(--ink)", "stroke-width": 2 })),
    h("p", { class: "soft" }, `${count(r.labels)} labels${isNumber(r.floor) ? `, floor ${share(r.floor, 0)}` : ""}`)];
}

function ranked(id, title, note, name, rows, pick, promql) {
  const most = Math.max(...rows.map((r) => r.usd), 1e-12);
  put(id, head(id, title, note, promql, () => [[name, "usd"], ...rows.map((r) => [r[name], r.usd])]), rows.length ? h("table", null, h("tbody", null, rows.map((r) => h("tr", null, h("td", null, pick ? h("button", { type: "button", "data-key": id + r[name], onclick: () => pick(r[name]) }, r[name] || "(none)") : r[name], h("div", { class: "bar" }, h("i", { style: { width: 100 * r.usd / most + "%", background: "var(--c1)" } }))), h("td", { class: "n" }, usd(r.usd)))))) : h("p", { class: "empty" }, id === "tags" ? "No tags yet. Requests set them with the header x-tollway-tags: team=ads." : "None."));
}

function decisions(d) {
  put("decisions", head("decisions", "Recent decisions", "open one to see the reasons"), d.decisions.length ? h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Decisions, scrolls horizontally" }, h("table", null, h("thead", null, h("tr", null, ["Time", "Route", "Backend", "Reason", "Cost"].map((t, i) => h("th", { scope: "col", class: i === 4 ? "n" : "" }, t)))), h("tbody", null, d.decisions.map((x) => {
    const last = x.stages[x.stages.length - 1] || {}, chosen = x.attempts[x.attempts.length - 1];
    return h("tr", null, h("td", null, clock(x.time)), h("td", null, x.route), h("td", null, chosen ? chosen.backend : "–"),
      h("td", null, h("details", { "data-key": x.id }, h("summary", null, last.reason || "–"), h("ol", null, x.story.map((s) => h("li", null, s))), h("p", { class: "soft" }, "tollway explain " + x.id))), h("td", { class: "n" }, usd(x.cost_usd)));
  })))) : h("p", { class: "empty" }, "No requests yet."));
}

function events(d) {
  const all = [...d.events, ...d.acts].sort((a, b) => b.time - a.time).slice(0, 20);
  put("events", head("events", "Events and operators' acts"), all.length ? h("ul", { class: "events" }, all.map((e) => h("li", null, h("time", { datetime: new Date(e.time * 1000).toISOString() }, when(e.time)), h("strong", null, e.kind.replaceAll("_", " ")), ` ${e.about}: ${e.text}`))) : h("p", { class: "empty" }, "No events."));
  put("anomalies", d.anomalies.length ? [h("h2", null, "Unusual spend"), d.anomalies.map((a) => h("p", null, a.text))] : []);
}

function filters(d) {
  for (const [id, known] of [["route", d.routes_known], ["tenant", d.tenants_known]]) {
    const select = $(id), value = select.value;
    if (select.options.length - 1 !== known.length) { select.replaceChildren(h("option", { value: "" }, "all"), ...known.map((n) => h("option", { value: n }, n))); select.value = value; }
  }
}

function render(d) {
  state.data = d; d.routeAsked = $("route").value; d.tenantAsked = $("tenant").value;
  d.routes.forEach((r) => Object.keys(r.up).forEach(color));
  $("main").hidden = false; $("login").hidden = true;
  filters(d); figures(d); spend(d); budgets(d); routes(d); devices(d); replicas(d); rollouts(d); decisions(d); events(d);
  ranked("tenants", "Top tenants", "", "tenant", d.tenants, (name) => { $("tenant").value = name; connect(); }, `topk(10, sum by (tenant) (increase(tollway_cost_usd_total${selector()}[${range()}])))`);
  ranked("tags", "Top tags", "since the gateway started", "tag", d.tags, null, null);
  say("live, " + clock(d.now), "live");
  document.body.dataset.ready = "yes";
}

// -- the live connection: server-sent events over fetch, because EventSource cannot send a key

async function connect() {
  state.abort?.abort();
  const abort = state.abort = new AbortController();
  const query = new URLSearchParams({ range: $("range").value, route: $("route").value, tenant: $("tenant").value });
  history.replaceState(null, "", "?" + query);
  try {
    const reply = await fetch("/_tollway/live?" + query, { headers: state.key ? { authorization: "Bearer " + state.key } : {}, signal: abort.signal });
    if (reply.status === 401 || reply.status === 403) { sessionStorage.removeItem("tollway-key"); $("main").hidden = true; $("login").hidden = false; say(state.key ? "the gateway does not accept this key" : "key required", "lost"); $("key").focus(); return; }
    if (!reply.ok) throw new Error("status " + reply.status);
    if (state.key) sessionStorage.setItem("tollway-key", state.key);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const line = text.slice(0, end);
        if (line.startsWith("data: ") && !state.paused) render(JSON.parse(line.slice(6)));
      }
    }
    throw new Error("the gateway closed the connection");
  } catch (error) {
    if (abort.signal.aborted) return;
    say(`disconnected (${error.message}); reconnecting`, "lost");
    setTimeout(() => { if (state.abort === abort) connect(); }, 2000);
  }
}

const asked = new URLSearchParams(location.search);
if (asked.get("range")) $("range").value = asked.get("range");
for (const id of ["route", "tenant"]) if (asked.get(id)) { $(id).append(h("option", { value: asked.get(id) }, asked.get(id))); $(id).value = asked.get(id); }
for (const id of ["range", "route", "tenant"]) $(id).addEventListener("change", connect);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("login").addEventListener("submit", (event) => { event.preventDefault(); state.key = $("key").value.trim(); $("key").value = ""; connect(); });
$("pause").addEventListener("click", () => { state.paused = !state.paused; $("pause").setAttribute("aria-pressed", state.paused); $("pause").textContent = state.paused ? "Resume" : "Pause"; if (state.paused) say("paused", ""); });
connect();
