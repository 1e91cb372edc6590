"use strict";
// Everything that a model, an environment or a file wrote reaches the page as textContent, never as markup.
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "onclick") element.addEventListener("click", value);
      else if (key === "class") element.className = value;
      else if (value !== undefined && value !== null) element.setAttribute(key, value);
    }
    for (const child of children.flat()) if (child !== null && child !== undefined) element.append(child);
    return element;
  };
  const PAGE = 50;
  const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const percent = (value) => `${(100 * value).toFixed(value < 0.0995 && value > 0 ? 1 : 0)} %`;

  async function unpack(id) {
    const text = byId(id).textContent;
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  }

  // ---- light and dark, parts of the page
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = dark.matches ? "dark" : "light";
  const show = (name) => { theme = name; document.documentElement.dataset.theme = name; };
  show(theme);
  dark.addEventListener("change", (event) => show(event.matches ? "dark" : "light"));
  byId("theme").addEventListener("click", () => show(theme === "dark" ? "light" : "dark"));
  document.querySelectorAll("main h2").forEach((heading, index) => {
    if (heading.closest("[hidden]") && heading.textContent !== "Trajectories") return;
    heading.id = `part${index}`;
    byId("nav").append(make("a", { href: `#${heading.id}` }, heading.textContent));
  });

  // ---- the viewer
  let sources = [], source = null, number_of_source = 0, groups = [], found = [], page = 0, task = null;
  let candidate = null, shown = [];
  const portions = new Map();

  async function portion(index) {
    const id = `p${number_of_source}-${index}`;
    if (!portions.has(id)) {
      if (portions.size > 30) portions.delete(portions.keys().next().value);
      portions.set(id, unpack(id));
    }
    return portions.get(id);
  }

  function choose(index) {
    number_of_source = index;
    source = sources[index];
    const columns = source.columns;
    groups = source.tasks.map((id, place) => ({ id, goal: source.goals[place], rows: [] }));
    for (let row = 0; row < source.count; row += 1) groups[columns.task[row]].rows.push(row);
    for (const group of groups) {
      const wins = group.rows.filter((row) => columns.ok[row]).length;
      group.rate = wins / group.rows.length;
      group.text = `${group.id} ${group.goal}`.toLowerCase();
      group.disagree = disagree(group);
    }
    byId("scorer").replaceChildren(
      ...Object.keys(source.ranks).map((name) => make("option", { value: name }, `${name} (${source.rules[name] ?? "last"})`)),
      make("option", { value: "" }, "as sampled"),
    );
    const stops = [...new Set(columns.stop)].sort();
    byId("stop").replaceChildren(
      make("option", { value: "*" }, "any"),
      ...stops.map((name) => make("option", { value: name }, (name || "unfinished").replaceAll("_", " "))),
    );
    filter();
  }

  function best(group, name) {
    const ranks = source.ranks[name];
    let top = null;
    for (const row of group.rows) if (ranks[row] !== null && (top === null || ranks[row] > ranks[top])) top = row;
    return top;
  }

  function disagree(group) {
    const tops = Object.keys(source.ranks).map((name) => best(group, name)).filter((row) => row !== null);
    return new Set(tops.map((row) => source.columns.ok[row])).size > 1;
  }

  function filter() {
    const words = byId("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = byId("kind").value, stop = byId("stop").value || "*";
    const shortest = Number(byId("shortest").value || 0), longest = Number(byId("longest").value || Infinity);
    const { stop: stops, len } = source.columns;
    const fits = (row) => (stop === "*" || stops[row] === stop) && len[row] >= shortest && len[row] <= longest;
    found = groups.filter((group) => {
      if (kind === "success" && group.rate === 0) return false;
      if (kind === "failure" && group.rate === 1) return false;
      if (kind === "mixed" && (group.rate === 0 || group.rate === 1)) return false;
      if (kind === "never" && group.rate > 0) return false;
      if (kind === "disagree" && !group.disagree) return false;
      return words.every((word) => group.text.includes(word)) && group.rows.some(fits);
    });
    page = 0;
    const rows = found.reduce((sum, group) => sum + group.rows.length, 0);
    byId("count").textContent =
      `${found.length.toLocaleString()} of ${groups.length.toLocaleString()} tasks, ${rows.toLocaleString()} trajectories`;
    listTasks();
    if (found.length) openTask(found[0]);
    else { byId("task").replaceChildren(); byId("candidate").replaceChildren(); task = null; }
  }

  function listTasks() {
    const part = found.slice(page * PAGE, (page + 1) * PAGE);
    byId("tasks").replaceChildren(...part.map((group) => make("li", {}, make(
      "button", { type: "button", onclick: () => { openTask(group); reveal("task"); }, "aria-current": group === task ? "true" : "false" },
      make("span", {}, group.id), " ",
      make("span", { class: group.rate ? "ok" : "no" }, `${group.rate ? "✓" : "✗"} ${percent(group.rate)} of ${group.rows.length}`),
      make("span", { class: "goal" }, group.goal),
    ))));
    const pages = Math.ceil(found.length / PAGE);
    const turn = (by) => () => { page += by; listTasks(); };
    byId("pager").replaceChildren(...(pages > 1 ? [
      make("button", { type: "button", onclick: turn(-1), disabled: page === 0 ? "" : undefined }, "‹"),
      `${page + 1} / ${pages}`,
      make("button", { type: "button", onclick: turn(1), disabled: page >= pages - 1 ? "" : undefined }, "›"),
    ] : []));
  }

  function mark() {
    byId("tasks").querySelectorAll("button").forEach((button, index) => {
      button.setAttribute("aria-current", found[page * PAGE + index] === task ? "true" : "false");
    });
  }

  // On a narrow screen the parts of the viewer lie below each other.
  function reveal(id) {
    if (matchMedia("(max-width: 62rem)").matches) byId(id).scrollIntoView();
  }

  function openTask(group) {
    task = group;
    mark();
    const name = byId("scorer").value, { sample, ok, len, stop, it } = source.columns;
    const names = Object.keys(source.ranks);
    const rows = [...group.rows];
    if (name) rows.sort((a, b) => (source.ranks[name][b] ?? -Infinity) - (source.ranks[name][a] ?? -Infinity));
    shown = rows;
    const head = ["", ...(it ? ["iteration"] : []), "sample", "actions", "stop", ...names];
    const body = rows.map((row) => {
      const cells = [
        make("td", { class: ok[row] ? "ok" : "no" }, ok[row] ? "✓" : "✗"),
        ...(it ? [make("td", {}, String(it[row]))] : []),
        make("td", {}, make("button", { type: "button" }, String(sample[row]))),
        make("td", {}, String(len[row])), make("td", {}, (stop[row] || "unfinished").replaceAll("_", " ")),
        ...names.map((other) => make("td", {}, number(source.ranks[other][row]) + (best(group, other) === row ? " ★" : ""))),
      ];
      return make("tr", { "data-row": row, onclick: () => { openCandidate(row); reveal("candidate"); } }, cells);
    });
    byId("task").replaceChildren(
      make("h3", {}, group.id),
      make("p", { class: "about" }, `${rows.length} trajectories${name ? `, ranked by ${name}` : ""}; ★ marks the best of a scorer.`),
      make("div", { class: "wide" }, make("table", { class: "candidates" },
        make("thead", {}, make("tr", {}, head.map((title) => make("th", {}, title)))), make("tbody", {}, body))),
    );
    openCandidate(rows[0]);
  }

  async function openCandidate(row) {
    candidate = row;
    byId("task").querySelectorAll("tr[data-row]").forEach((line) =>
      line.setAttribute("aria-current", line.dataset.row === String(row) ? "true" : "false"));
    const { portion: of, place } = source.columns;
    const loaded = await portion(of[row]);
    if (candidate === row) drawCandidate(loaded[place[row]]);
  }

  function message(one, name) {
    const parts = [
      one.th !== undefined ? make("p", { class: "message thought" }, one.th) : null,
      one.c ? make("p", { class: `message ${name}` }, one.r ? `${one.r}: ${one.c}` : one.c) : null,
      ...(one.calls ?? []).map((call) => make("p", { class: `message ${name}` }, call)),
    ];
    return parts.filter((part) => part !== null);
  }

  function bars(one, index) {
    const lines = Object.entries(one.s ?? {}).filter(([, scores]) => scores && scores.v.length > index).map(([name, scores]) => {
      const value = scores.v[index], change = scores.p[index];
      const fill = make("i");
      fill.style.width = `${100 * Math.min(1, Math.max(0, value ?? 0))}%`;
      const arrow = change > 0.005 ? "▲" : change < -0.005 ? "▼" : "•";
      return [
        make("span", {}, name), make("span", { class: "bar", title: `promise ${number(value, 4)}` }, fill),
        make("span", {}, number(value)),
        make("span", { class: change < -0.005 ? "no" : change > 0.005 ? "ok" : "", title: "progress" }, `${arrow} ${number(change)}`),
      ];
    });
    return lines.length ? make("div", { class: "scores" }, ...lines) : null;
  }

  function tokens(step) {
    const rows = step.ids.map((id, index) => {
      const text = source.tokens[id] ?? `#${id}`;
      const span = make("span", { title: `id ${id}, log-probability ${number(step.lp[index], 4)}` }, text);
      span.style.borderColor = `color-mix(in srgb, var(--bad) ${Math.min(100, -25 * step.lp[index])}%, var(--good))`;
      return [span, ` ${number(step.lp[index])} `];
    });
    return make("p", { class: "tokens" }, ...rows);
  }

  function drawCandidate(one) {
    const steps = one.steps.map((step, index) => make("div", { class: "step" },
      make("div", { class: "action" }, `${index + 1}. `, ...message(step.a, "action")),
      step.act !== undefined ? make("p", { class: "about" }, `read as: ${step.act}`) : null,
      step.bad ? make("p", { class: "bad" }, "could not be carried out") : null,
      bars(one, index),
      step.p !== undefined ? make("p", { class: "about" }, `probability under the policy ${number(step.p, 3)}, ${step.ids.length} tokens `,
        make("button", { type: "button", onclick: (event) => event.target.parentElement.replaceWith(tokens(step)) }, "tokens")) : null,
      ...step.o.map((answer) => message(answer, "observation")),
    ));
    byId("candidate").replaceChildren(...[
      make("h3", {}, `${one.t}, sample ${one.n}`),
      make("p", { class: one.ok ? "ok" : "no" },
        `${one.ok ? "✓ success" : "✗ no success"}, score ${number(one.o)}, ${(one.stop || "unfinished").replaceAll("_", " ")}, ${one.tok} sampled tokens`),
      one.err ? make("p", { class: "bad" }, one.err) : null,
      one.nodes && one.nodes.length ? make("details", {}, make("summary", {}, "the search as a tree"), tree(one.nodes)) : null,
      ...one.m.map((opening) => message(opening, "observation")).flat(),
      ...Object.entries(one.s ?? {}).filter(([, scores]) => scores).slice(0, 1).map(([name, scores]) =>
        make("p", { class: "about" }, `before any action ${name} says ${number(scores.i)}`)),
      ...steps,
    ].filter((part) => part !== null));
  }

  function tree(nodes) {
    const children = new Map();
    for (const node of nodes) {
      if (!children.has(node.parent)) children.set(node.parent, []);
      children.get(node.parent).push(node);
    }
    const branch = (parent) => {
      const own = children.get(parent);
      if (!own) return null;
      return make("ul", { class: "tree" }, own.map((node) => {
        const end = node.stop ? `, ${node.stop.replaceAll("_", " ")} ${node.success ? "✓" : "✗"}` : "";
        const fate = node.chosen ? "chosen" : node.kept ? "kept" : "dropped";
        const samples = node.samples > 1 ? ` ×${node.samples}` : "";
        return make("li", {},
          make("span", { class: fate }, `${node.actions.join(" → ")}${samples}  ${number(node.rank)}  (${fate}${end})`), branch(node.number));
      }));
    };
    return branch(null) ?? make("p");
  }

  function move(list, now, by) {
    const index = list.indexOf(now);
    return list[Math.min(list.length - 1, Math.max(0, index + by))];
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !source) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") { event.preventDefault(); byId("query").focus(); return; }
    const by = { j: 1, k: -1 }[event.key];
    if (by && found.length) {
      const next = move(found, task, by), place = Math.floor(found.indexOf(next) / PAGE);
      if (place !== page) { page = place; listTasks(); }
      openTask(next);
    }
    const along = { n: 1, p: -1 }[event.key];
    if (along && shown.length) openCandidate(move(shown, candidate, along));
  }

  async function start() {
    sources = await unpack("index");
    sources = sources.map((one, index) => ({ ...one, index })).filter((one) => one.count);
    if (!sources.length) return;
    byId("viewer").hidden = false;
    byId("source").replaceChildren(...sources.map((one) =>
      make("option", { value: one.index }, `${one.title} (${one.count.toLocaleString()})`)));
    const all = sources;
    sources = [];
    for (const one of all) sources[one.index] = one;
    byId("source").addEventListener("change", (event) => choose(Number(event.target.value)));
    for (const id of ["query", "kind", "stop", "shortest", "longest"]) byId(id).addEventListener("input", filter);
    byId("scorer").addEventListener("change", () => task && openTask(task));
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("keydown", key);
    choose(all[0].index);
    document.documentElement.dataset.ready = "true";
  }
  start();
})();
