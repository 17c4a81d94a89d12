"use strict";
(() => {
  const $ = (query, root = document) => root.querySelector(query);
  const $$ = (query, root = document) => [...root.querySelectorAll(query)];
  const make = (tag, className, ...children) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  };
  const isolated = (text) => make("bdi", "", text);  // names may be written from right to left
  const press = (buttons, one) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === one)));
  const body = $("#images tbody");
  if (!body) return;
  const rows = $$("tr", body);
  const facts = new Map();
  const told = (row) => {
    if (!facts.has(row)) facts.set(row, JSON.parse(row.dataset.row));
    return facts.get(row);
  };

  // filters
  const wanted = { verdict: "", type: "", text: "" };
  const filter = () => {
    let shown = 0;
    for (const row of rows) {
      const fits = (!wanted.verdict || row.classList.contains(wanted.verdict))
        && (!wanted.type || (row.classList.contains("defective") && told(row).regions.some((r) => r.type === wanted.type)))
        && (!wanted.text || told(row).image.toLowerCase().includes(wanted.text));
      row.hidden = !fits;
      shown += fits;
    }
    $("#shown").textContent = shown === rows.length ? "" : `${shown} of ${rows.length} shown`;
    $("#empty").hidden = shown > 0;
    $("#images table").hidden = shown === 0;
  };
  const verdicts = $$("[data-verdict]");
  verdicts.forEach((b) => b.addEventListener("click", () => { press(verdicts, b); wanted.verdict = b.dataset.verdict; filter(); }));
  $("#type").addEventListener("change", (e) => { wanted.type = e.target.value; filter(); });
  $("#search").addEventListener("input", (e) => { wanted.text = e.target.value.trim().toLowerCase(); filter(); });
  $(".filters").addEventListener("submit", (e) => e.preventDefault());

  // sorting
  const byName = new Intl.Collator(undefined, { numeric: true });
  const sort = (key, way) => {
    const value = (row) => Number(row.dataset[key]);
    const compare = key === "name" ? (a, b) => byName.compare(a.dataset.name, b.dataset.name) : (a, b) => value(a) - value(b);
    rows.sort((a, b) => way * compare(a, b) || b.dataset.score - a.dataset.score || a.dataset.number - b.dataset.number);
    body.append(...rows);
    for (const head of $$("#images th")) {
      const button = $("button", head);
      if (button && button.dataset.sort === key) head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    const order = `${key}:${way}`;
    if ($$("#order option").some((o) => o.value === order)) $("#order").value = order;
  };
  $$("th button").forEach((b) => b.addEventListener("click", () => {
    const now = b.closest("th").getAttribute("aria-sort");
    const first = ["score", "regions"].includes(b.dataset.sort) ? -1 : 1;
    sort(b.dataset.sort, now === null ? first : now === "ascending" ? -1 : 1);
  }));
  $("#order").addEventListener("change", (e) => { const [key, way] = e.target.value.split(":"); sort(key, Number(way)); });
  sort("score", -1);

  // large view
  const dialog = $("#large"), place = $("#place"), side = $("#told");
  const layers = $$("[data-layer]");
  let current = null, layer = "outlines";

  const shared = (a, b) => Math.max(0, Math.min(a[0] + a[2], b[0] + b[2]) - Math.max(a[0], b[0]))
    * Math.max(0, Math.min(a[1] + a[3], b[1] + b[3]) - Math.max(a[1], b[1]));  // of two boxes [left, top, width, height]
  const labels = () => {  // beside its outline, on no other label, on as little of the other outlines as it can be
    const stage = $(".stage", place);
    $$(".label", place).forEach((label) => label.remove());
    if (!stage || layer !== "outlines") return;
    const frame = place.getBoundingClientRect(), taken = [];
    const boxes = new Map($$("g", stage).map((group) => {
      const box = $(".line", group).getBoundingClientRect();
      return [Number(group.dataset.id), [box.left - frame.left, box.top - frame.top, box.width, box.height]];
    }));
    for (const region of told(current).regions.slice(0, 40)) {
      const own = boxes.get(region.id);
      if (!own) continue;
      const label = make("span", "label", isolated(region.type), ` ${region.score}`);
      label.style.background = region.colour;
      label.style.color = region.ink;
      place.append(label);
      const w = label.offsetWidth, h = label.offsetHeight;
      const [left, top, width, height] = own, right = left + width, bottom = top + height;
      const around = [[left, top - h - 4], [left, bottom + 4], [right - w, top - h - 4], [right - w, bottom + 4],
        [right + 4, top], [left - w - 4, top], [left + 4, top + 4]];
      const spots = (corners) => corners
        .map(([x, y]) => [Math.max(0, Math.min(x, frame.width - w)), Math.max(0, Math.min(y, frame.height - h)), w, h])
        .filter((spot) => taken.every((other) => !shared(spot, [other[0] - 2, other[1] - 2, other[2] + 4, other[3] + 4])));
      const cost = (spot) => [...boxes.values()].reduce((sum, box) => sum + shared(spot, box), 0);
      let best = spots(around).map((spot) => [cost(spot), spot]).sort((a, b) => a[0] - b[0])[0]?.[1];
      for (let ring = 1; ring < 12 && !best; ring += 1)
        [best] = spots([[left, top - h - 4 - ring * (h + 4)], [left, bottom + 4 + ring * (h + 4)]]);
      if (!best) { label.remove(); continue; }
      label.style.left = `${best[0]}px`;
      label.style.top = `${best[1]}px`;
      taken.push(best);
    }
  };

  const showLayer = () => {
    const heat = $(".heat", place), outlines = $("svg", place);
    if (heat) heat.hidden = layer !== "heat";
    $("#scale").hidden = !heat || layer !== "heat";
    $(".stage", place)?.classList.toggle("heated", Boolean(heat) && layer === "heat");
    if (outlines) outlines.style.display = layer === "outlines" ? "" : "none";
    labels();
  };

  const picture = (row) => {
    const stage = $(".stage", row)?.cloneNode(true);
    place.classList.toggle("coarse", Boolean($(".coarse", row)));
    const heated = $("[data-layer=heat]");  // a result that was kept from an earlier run has no map
    heated.disabled = !$(".heat", row);
    if (heated.disabled && layer === "heat") { layer = "outlines"; press(layers, layers[0]); layers[0].focus(); }
    if (!stage) { place.replaceChildren(make("p", "none", "The photo of this image is not embedded in the report.")); return; }
    const heat = $(".heat", stage);
    if (heat) heat.src = heat.dataset.src;
    place.replaceChildren(stage);
  };

  const gauge = ([score, threshold]) => {
    const bar = make("i"), tick = make("u"), track = make("span", "gauge", bar, tick);
    bar.style.width = `${100 * score}%`;
    tick.style.left = `${100 * threshold}%`;
    return track;
  };

  const dot = (colour) => { const mark = make("i", "dot"); mark.style.background = colour; return mark; };

  const typeBars = (types) => {
    const bars = make("div", "bars");
    for (const [name, score, colour] of types) {
      const fill = make("i");
      fill.style.width = `${100 * score}%`;
      fill.style.background = colour;
      bars.append(isolated(name), make("span", "track", fill), make("b", "", score.toFixed(2)));
    }
    return bars;
  };

  const regionTable = (regions) => {
    const table = make("table", "found");
    const head = make("tr", "", ...["Type", "Score", "Lead", "Area, px"].map((t, i) => make("th", i === 3 ? "right-hand" : "", t)));
    const list = make("tbody");
    for (const region of regions) {
      const [x, y, w, h] = region.bbox;
      const place_ = make("small", "", ` at ${x}, ${y} (${w} \u00d7 ${h})`);
      const row = make("tr", "", make("td", "", dot(region.colour), isolated(region.type), make("br"), place_),
        make("td", "", region.score), make("td", "", region.margin), make("td", "right-hand", region.area.toLocaleString("en")));
      const light = (on) => () => {
        const group = $(`g[data-id="${region.id}"]`, place);
        if (group) { group.classList.toggle("on", on); group.parentNode.classList.toggle("dimmed", on); }
      };
      row.addEventListener("mouseenter", light(true));
      row.addEventListener("mouseleave", light(false));
      list.append(row);
    }
    table.append(make("thead", "", head), list);
    return table;
  };

  const advice = (regions) => {
    const names = new Set(regions.map((r) => r.type));
    return $$("article[data-type]").filter((card) => names.has(card.dataset.type)).map((card) =>
      make("details", "", make("summary", "", isolated(card.dataset.type), ": causes and actions"), $(".advice", card).cloneNode(true)));
  };

  const show = (row) => {
    current = row;
    const fact = told(row), bad = fact.verdict === "defective";
    $("#large-name").replaceChildren(isolated(row.dataset.name));
    $("#large-name").title = fact.image;
    const headline = make("div", `headline ${fact.verdict}`, make("span", `badge ${fact.verdict}`, bad ? "Defective" : "OK"), make("strong", "", fact.score), gauge(fact.at));
    const parts = [headline, make("p", "under", `Threshold ${fact.threshold}, ${fact.calibration}`)];
    if (fact.regions.length) parts.push(make("h4", "", fact.regions.length === 1 ? "1 region" : `${fact.regions.length} regions`), regionTable(fact.regions));
    if (fact.types.length) parts.push(make("h4", "", "Score of each type on the whole picture"), typeBars(fact.types));
    if (fact.note) parts.push(make("p", "under", fact.note));
    if (bad) parts.push(...advice(fact.regions));
    parts.push(make("p", "under", isolated(fact.image), ` \u00b7 ${fact.size[0]} \u00d7 ${fact.size[1]} px \u00b7 ${fact.ms} ms`));
    side.replaceChildren(...parts);
    picture(row);
    const seen = rows.filter((r) => !r.hidden), at = seen.indexOf(row);
    $("#before").disabled = at <= 0;
    $("#after").disabled = at >= seen.length - 1;
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    showLayer();
  };
  const step = (by) => {
    const seen = rows.filter((r) => !r.hidden), next = seen[seen.indexOf(current) + by];
    if (next) show(next);
  };
  body.addEventListener("click", (e) => { const row = e.target.closest("tr"); if (row) show(row); });
  body.addEventListener("keydown", (e) => { if (e.key === "Enter" && e.target.matches("tr")) show(e.target); });
  layers.forEach((b) => b.addEventListener("click", () => { press(layers, b); layer = b.dataset.layer; showLayer(); }));
  $("#before").addEventListener("click", () => step(-1));
  $("#after").addEventListener("click", () => step(1));
  $("#shut").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (e) => { if (e.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (e) => { if (e.key === "ArrowLeft") step(-1); if (e.key === "ArrowRight") step(1); });
  dialog.addEventListener("close", () => current?.focus());
  addEventListener("resize", () => { if (dialog.open) labels(); });
})();
