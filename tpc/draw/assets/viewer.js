"use strict";
for (const viewer of document.querySelectorAll(".viewer")) {
  const find = (selector) => viewer.querySelector(selector);
  const data = JSON.parse(find("script.data").textContent);
  const stage = find(".stage"), panel = find(".panel"), hits = find(".hits");
  const search = find(".find"), select = find(".views");
  const drawings = [...stage.querySelectorAll("svg")];
  const LEGIBLE = 0.66, HIGHEST = 1700, PANEL = 340; // pixels for a unit of the drawing, pixels of the stage
  let drawing, box, home, chosen = null, found = [], at = -1;

  // --- the part of the drawing that is seen ---
  const look = () => drawing.setAttribute("viewBox", `${box.x} ${box.y} ${box.w} ${box.h}`);
  const fit = () => { box = { ...home }; look(); };
  function scale() { // pixels per unit of the drawing, and the margins that keep its proportions
    const r = stage.getBoundingClientRect(), k = Math.min(r.width / box.w, r.height / box.h);
    return { k, left: r.left + (r.width - box.w * k) / 2, top: r.top + (r.height - box.h * k) / 2 };
  }
  function zoom(factor, x, y) {
    const r = stage.getBoundingClientRect(), s = scale();
    const px = x === undefined ? box.x + box.w / 2 : box.x + (x - s.left) / s.k;
    const py = y === undefined ? box.y + box.h / 2 : box.y + (y - s.top) / s.k;
    const w = Math.min(Math.max(box.w / factor, 80), home.w * 4), by = w / box.w;
    box = { x: px - (px - box.x) * by, y: py - (py - box.y) * by, w, h: box.h * by };
    look();
  }
  function pan(dx, dy) {
    const { k } = scale();
    box.x -= dx / k; box.y -= dy / k;
    look();
  }
  function show(view) {
    for (const one of drawings) one.toggleAttribute("hidden", one.dataset.view !== view);
    drawing = drawings.find((one) => one.dataset.view === view);
    select.value = view;
    const [w, h] = drawing.dataset.size.split(" ").map(Number);
    home = { x: 0, y: 0, w, h };
    const whole = viewer.dataset.whole !== undefined;
    viewer.classList.toggle("below", w * 0.95 > viewer.clientWidth - PANEL || viewer.clientWidth < 820); // the panel leaves a wide drawing its room
    const wide = stage.clientWidth;
    if (!whole) // as high as the drawing in a size that can be read
      viewer.style.setProperty("--stage", `${Math.min(Math.max(h * Math.min(Math.max(wide / w, LEGIBLE), 1), 300), HIGHEST)}px`);
    fit();
    if (scale().k < LEGIBLE) { // what is larger than the stage starts at the output
      box = { x: 0, y: 0, w: wide / LEGIBLE, h: stage.clientHeight / LEGIBLE };
      const end = drawing.querySelector(".node.k-output"), c = end ? centre(end) : { x: w / 2, y: h };
      box.x = Math.min(Math.max(c.x - box.w / 2, Math.min(0, (w - box.w) / 2)), Math.max(w - box.w, (w - box.w) / 2));
      box.y = Math.max(Math.min(c.y + 60, h) - box.h, Math.min(0, h - box.h));
      look();
    }
    mark();
  }

  // --- nodes ---
  const node = (name, where = drawing) => where.querySelector(`.node[data-node="${CSS.escape(name)}"]`);
  const drawn = (name) => { // a view with the node, or with the one that stands for it
    const views = [drawing, ...drawings.filter((one) => one !== drawing)];
    return views.find((one) => node(name, one));
  };
  function centre(element) {
    const m = element.transform.baseVal.consolidate().matrix, g = element.parentNode.transform.baseVal.consolidate();
    const o = g ? g.matrix : { e: 0, f: 0 };
    return { x: m.e + o.e, y: m.f + o.f };
  }
  function choose(name, focus) {
    const where = drawn(name);
    if (!where) return;
    if (where !== drawing) show(where.dataset.view);
    chosen = name;
    const element = node(name), c = centre(element);
    const inside = c.x > box.x && c.x < box.x + box.w && c.y > box.y && c.y < box.y + box.h;
    if (!inside) { box.x = c.x - box.w / 2; box.y = c.y - box.h / 2; look(); }
    mark();
    tell(name);
    if (focus) element.focus({ preventScroll: true });
  }
  function mark() {
    const now = new Set(found);
    for (const one of drawing.querySelectorAll(".node[data-node]")) {
      const is = one.dataset.node === chosen;
      one.classList.toggle("chosen", is);
      one.classList.toggle("hit", now.has(one.dataset.node));
      one.setAttribute("aria-pressed", String(is));
      one.setAttribute("tabindex", "-1");
    }
    const entry = (chosen && node(chosen)) || drawing.querySelector(".node[data-node]");
    if (entry) entry.setAttribute("tabindex", "0");
    for (const edge of drawing.querySelectorAll(".edge"))
      edge.classList.toggle("near", chosen !== null && [edge.dataset.from, edge.dataset.to].includes(chosen));
  }

  // --- the panel ---
  function add(tag, text, cls) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (cls) made.className = cls;
    return panel.appendChild(made);
  }
  function named(title, names) {
    if (!names.length) return;
    add("h4", title);
    const row = add("div", undefined, "names");
    for (const name of names) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = data.nodes[name] ? data.nodes[name].label : name;
      button.addEventListener("click", () => choose(name, true));
      row.appendChild(button);
    }
  }
  function tell(name) {
    const n = data.nodes[name];
    panel.replaceChildren();
    add("h3", n.label === name ? name : `${n.label} (${name})`);
    add("p", [n.kind, n.op, n.stage].filter(Boolean).join(" · "), "faint");
    const equal = n.stands_for && n.stands_for[drawing.dataset.view];
    if (equal) {
      add("p", `One of ${equal.length} equal layers, drawn once.`);
      const more = add("button", "Show all layers");
      more.type = "button";
      const other = drawings.find((one) => one.dataset.view === drawing.dataset.all);
      more.addEventListener("click", () => { show(other.dataset.view); choose(name, true); });
    }
    add("h4", n.number ? `Equation (${n.number})` : "Equation");
    const formula = add("div", undefined, "formula");
    formula.innerHTML = n.mathml;
    for (const line of n.equation.split("\n")) add("code", line).parentNode.appendChild(document.createElement("br"));
    if (n.axes.length) {
      add("h4", "Shape");
      for (const a of n.axes) add("p", `axis ${a.name}${a.size ? ` = ${a.size}` : ""}: ${a.meaning}`);
    }
    if (n.rule) {
      add("h4", n.whole ? "Is the limit of" : "Is part of the limit of");
      add("code", n.instruction);
      if (n.source) {
        add("h4", "Written in");
        add("p", n.source, "faint");
        if (n.line) add("code", n.line);
      }
      add("h4", "Rule");
      add("p", n.rule);
      if (n.step) add("p", `here: ${n.step}`, "faint");
    }
    if (n.code) {
      add("h4", `NumPy code, in ${n.code.function}`);
      add("p", n.code.joined ? `computed together with ${n.code.name}` : `the variable ${n.code.name}`, "faint");
      const pre = add("pre");
      for (const k of n.code.lines) {
        const number = document.createElement("b");
        number.textContent = String(k).padStart(4) + "  ";
        pre.append(number, data.code[k - 1] + "\n");
      }
    }
    named("Computed from", n.before);
    named("Used by", n.after);
    panel.scrollTop = 0;
  }

  // --- search ---
  function seek() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const here = (name) => Number(!node(name));
    found = !words.length ? [] : Object.keys(data.nodes).filter((name) => {
      const n = data.nodes[name];
      const text = [name, n.label, n.op, n.kind, n.equation, n.layer].join(" ").toLowerCase();
      return words.every((w) => text.includes(w)) && drawn(name);
    });
    const exact = (name) => Number(!(name.toLowerCase() === words[0] || data.nodes[name].label.toLowerCase() === words[0]));
    found = found.map((name, i) => [exact(name), here(name), i, name]).sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]).map((x) => x[3]);
    at = -1;
    hits.textContent = words.length ? (found.length ? `${found.length} found` : "none found") : "";
    mark();
  }
  search.addEventListener("input", seek);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { search.value = ""; seek(); }
    if (event.key !== "Enter" || !found.length) return;
    event.preventDefault();
    at = (at + (event.shiftKey ? found.length - 1 : 1)) % found.length;
    hits.textContent = `${at + 1} of ${found.length}`;
    choose(found[at], false);
  });

  // --- pointer and keys ---
  const pointers = new Map();
  let moved = 0;
  stage.addEventListener("pointerdown", (event) => { pointers.set(event.pointerId, event); moved = 0; });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
    moved += Math.abs(dx) + Math.abs(dy);
    if (moved > 4 && !stage.hasPointerCapture(event.pointerId)) {
      stage.setPointerCapture(event.pointerId);
      stage.classList.add("dragged");
    }
    if (pointers.size === 2) {
      const other = [...pointers.entries()].find(([id]) => id !== event.pointerId)[1];
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      zoom(apart(event) / apart(before), (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
    } else if (moved > 4) pan(dx, dy);
    pointers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"])
    stage.addEventListener(end, (event) => { pointers.delete(event.pointerId); stage.classList.remove("dragged"); });
  stage.addEventListener("click", (event) => {
    const hit = event.target.closest && event.target.closest(".node[data-node]");
    if (hit && moved <= 4) choose(hit.dataset.node, true);
  });
  stage.addEventListener("wheel", (event) => {
    const active = viewer.dataset.whole !== undefined || viewer.contains(document.activeElement);
    if (!active && !event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    const rows = event.deltaMode ? 30 : 1;
    zoom(Math.exp(-event.deltaY * rows * (event.ctrlKey ? 0.01 : 0.002)), event.clientX, event.clientY);
  }, { passive: false });
  function neighbour(key) {
    const from = document.activeElement.closest(".node[data-node]") || (chosen && node(chosen));
    if (!from) return null;
    const c = centre(from), [ux, uy] = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[key];
    let best = null, least = Infinity;
    for (const one of drawing.querySelectorAll(".node[data-node]")) {
      const d = centre(one), along = (d.x - c.x) * ux + (d.y - c.y) * uy, off = Math.abs((d.x - c.x) * uy) + Math.abs((d.y - c.y) * ux);
      if (one !== from && along > 1 && along + 2 * off < least) { least = along + 2 * off; best = one; }
    }
    return best;
  }
  stage.addEventListener("keydown", (event) => {
    const step = 60, moves = { ArrowUp: [0, step], ArrowDown: [0, -step], ArrowLeft: [step, 0], ArrowRight: [-step, 0] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) {
      if (event.shiftKey) pan(...moves[event.key]);
      else {
        const next = neighbour(event.key);
        if (next) choose(next.dataset.node, true);
      }
    } else if (event.key === "+" || event.key === "=") zoom(1.25);
    else if (event.key === "-") zoom(0.8);
    else if (event.key === "0") fit();
    else if (event.key === "Enter" || event.key === " ") {
      const hit = document.activeElement.closest(".node[data-node]");
      if (!hit) return;
      choose(hit.dataset.node, true);
      if (event.key === "Enter") panel.focus();
    } else if (event.key === "/") search.focus();
    else return;
    event.preventDefault();
  });
  find(".in").addEventListener("click", () => zoom(1.25));
  find(".out").addEventListener("click", () => zoom(0.8));
  find(".fit").addEventListener("click", fit);
  select.addEventListener("change", () => show(select.value));
  show(select.value);
  window.addEventListener("beforeprint", fit);
  let width = viewer.clientWidth;
  window.addEventListener("resize", () => {
    if (viewer.clientWidth !== width) { width = viewer.clientWidth; show(select.value); }
  });
}
