// The plot of all maps. Arrow keys go through its marks, and a table lists the same maps for screen readers.
const explore = document.getElementById("explore");
if (explore) {
  const data = JSON.parse(document.getElementById("explore-data").textContent);
  const others = data.others.map((row) => Object.fromEntries(row.map((value, at) => [data.fields[at], value])));
  for (const point of others) Object.assign(point, { origin: "sampler", by: "sampler", picks: [], ends: {} });
  const points = [...data.maps, ...others];
  for (const point of points) point.id = String(point.number);
  // Distilled maps are no trials: each stands beside the map as searched, and a click on it chooses that one.
  const distilled = data.distilled.map((point, at) => ({ ...point, id: `distilled-${at}`, origin: `distilled-${point.trained}`, by: "distillation", picks: [] }));
  const byNumber = new Map(points.map((point) => [point.number, point]));
  const quality = (name) => data.qualities.find((one) => one.name === name);
  const hasUnseen = Boolean(quality("unseen"));

  // Formats, as the tables above have them.
  const plain = (text) => (text.includes("e") || !text.includes(".") ? text : text.replace(/\.?0+$/, ""));
  const nats = (value) => plain(value.toPrecision(3));
  const score = (value) => value.toFixed(3);
  const times = (value) => `${value.toFixed(2)}x`;
  const megabytes = (bytes) => (bytes < 1e8 ? `${plain((bytes / 1e6).toPrecision(3))} MB` : `${Math.round(bytes / 1e6).toLocaleString("en")} MB`);
  const isScore = (name) => name === "metric" || name === "agreement";
  const written = (name, value) => (isScore(name) ? score(value) : nats(value));
  const sizeText = (point, axis) =>
    times(point[axis.name]) + (axis.name === "nominal" ? "" : ` (${megabytes(axis.fp32 / point[axis.name])})`);
  const scoreNames = data.qualities.map(({ name, short }) => [name, short]);

  // Everything is built from text, so no name of a map, model or run can become markup.
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const draw = (tag, attributes = {}, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const button = (text, onclick, attributes = {}) => {
    const made = make("button", { type: "button", ...attributes }, text);
    made.addEventListener("click", onclick);
    return made;
  };

  const first = data.start ?? data.fronts[`${data.quality} ${data.size}`][0] ?? points[0]?.number;
  const usual = { size: data.size, quality: data.quality, view: "size", map: String(first ?? "") };
  const allowed = {
    size: (value) => data.axes.some((axis) => axis.name === value),
    quality: (value) => Boolean(quality(value)),
    view: (value) => value === "size" || (value === "unseen" && hasUnseen),
    map: (value) => byNumber.has(Number(value)),
  };
  let state = {};
  const read = () => {
    const given = fragment();
    for (const name of Object.keys(usual)) state[name] = given.has(name) && allowed[name](given.get(name)) ? given.get(name) : usual[name];
  };
  const change = (changes) => {
    Object.assign(state, changes);
    keep(Object.fromEntries(Object.entries(changes).map(([name, value]) => [name, value === usual[name] ? null : value])));
    show();
  };
  const chosen = () => byNumber.get(Number(state.map));
  const choose = (point) => {
    change({ map: String(point.number) });
    spoken.textContent = describe(point).join(", ");
  };

  // Switches
  const fieldset = (name, legend, choices) => {
    const set = make("fieldset", { id: `explore-${name}` }, make("legend", {}, legend));
    for (const [value, text] of choices) {
      const input = make("input", { type: "radio", name: `explore-${name}`, value, id: `explore-${name}-${value}` });
      input.addEventListener("change", () => change({ [name]: value }));
      set.append(make("label", {}, input, text));
    }
    return set;
  };
  const switches = make("div", { class: "switches" });
  switches.append(fieldset("quality", "Quality", scoreNames));
  switches.append(fieldset("size", "Size", data.axes.map(({ name, text }) => [name, text])));
  if (hasUnseen) switches.append(fieldset("view", "Across", [["size", "size"], ["unseen", "own against unseen sentences"]]));

  // The plot
  const svg = draw("svg", { role: "group", "aria-label": "Plot of the maps; arrow keys go from map to map, Enter chooses one" });
  const tip = make("div", { class: "tip", hidden: "" });
  const canvas = make("div", { class: "canvas" }, svg, tip);
  const key = make("ul", { class: "key" });
  const detail = make("section", { "aria-label": "The chosen map", id: "explore-map" });
  const spoken = make("p", { class: "spoken", role: "status" }); // screen readers say which map was chosen
  const below = make("section", { "aria-label": "Its bits, and how to export it", id: "explore-bits" });
  const shapes = {
    sampler: (x, y) => `M${x - 4.5},${y}a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0`,
    uniform: (x, y) => `M${x},${y - 7}l7,7l-7,7l-7,-7z`,
    plain: (x, y) => `M${x},${y - 7}l6.5,12h-13z`,
    reference: (x, y) =>
      `M${[...Array(10).keys()].map((at) => {
        const radius = at % 2 ? 4.4 : 11, turn = (Math.PI * at) / 5;
        return `${(x + radius * Math.sin(turn)).toFixed(1)},${(y - radius * Math.cos(turn)).toFixed(1)}`;
      }).join("L")}z`,
    "distilled-weights": (x, y) => `M${x},${y + 6.5}l6.5,-12h-13z`,
    "distilled-scales": (x, y) => `M${x - 5},${y - 5}h10v10h-10z`,
  };
  const family = (point, onFront) => (point.origin === "sampler" && !onFront && !point.picks.length ? "grey" : point.origin);
  const dot = (x, y) => `M${(x - 2.2).toFixed(1)},${y.toFixed(1)}a2.2,2.2 0 1,0 4.4,0a2.2,2.2 0 1,0 -4.4,0`;
  const scale = (values, from, to, log) => {
    const change = log ? Math.log10 : (value) => value;
    let low = Math.min(...values.map(change)), high = Math.max(...values.map(change));
    const margin = 0.05 * (high - low) || Math.abs(0.05 * high) || 0.5;
    low -= margin;
    high += margin;
    const place = (value) => from + ((change(value) - low) / (high - low)) * (to - from);
    return { place, ticks: log ? decades(low, high) : steps(low, high) };
  };
  const decades = (low, high) => {
    const ticks = [];
    for (let power = Math.floor(low); power <= high; power++)
      for (const factor of high - low < 2.2 ? [1, 2, 5] : [1]) {
        const value = Number(`${factor}e${power}`);
        if (Math.log10(value) >= low && Math.log10(value) <= high) ticks.push([value, plain(value.toPrecision(1))]);
      }
    return ticks;
  };
  const steps = (low, high) => {
    const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    const ticks = [];
    for (let at = Math.ceil(low / step); at * step <= high; at++) ticks.push([at * step, String(Number((at * step).toPrecision(6)))]);
    return ticks;
  };
  let drawn = [], marks = [], hovered = null;

  const drawPlot = () => {
    const own = state.view === "unseen";
    const y = own ? "unseen" : state.quality, x = own ? "damage" : state.size;
    const axis = data.axes.find((one) => one.name === state.size);
    const value = (point, name) => (isScore(name) || name === state.size ? point[name] : Math.max(point[name], data.floor));
    const shown = [...points, ...distilled].filter((point) => point[x] != null && point[y] != null);
    const width = Math.max(280, canvas.clientWidth), height = Math.round(Math.min(540, Math.max(330, 0.68 * width)));
    const left = 66, right = 14, top = 14, bottom = 46;
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    drawn = [];
    marks = [];
    if (!shown.length) {
      svg.append(draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "no map has been scored yet"));
      return;
    }
    const isBound = !own && state.size === data.size;
    const across = scale([...shown.map((point) => value(point, x)), ...(isBound ? [data.least] : [])], left, width - right, own);
    const heights = shown.map((point) => value(point, y));
    const up = scale(y === "metric" ? [...heights, data.fp32[0]] : heights, height - bottom, top, !isScore(y));
    for (const [tick, text] of across.ticks) {
      svg.append(draw("line", { class: "grid", x1: across.place(tick), x2: across.place(tick), y1: top, y2: height - bottom }));
      svg.append(draw("text", { x: across.place(tick), y: height - bottom + 17, "text-anchor": "middle" }, text));
    }
    for (const [tick, text] of up.ticks) {
      svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: up.place(tick), y2: up.place(tick) }));
      svg.append(draw("text", { x: left - 7, y: up.place(tick) + 4, "text-anchor": "end" }, text));
    }
    const xTitle = own ? "damage on the search's own sentences, nats" : width < 480 ? `compression (${axis.text})` : `compression, times (${axis.text}); further right is smaller`;
    const yTitle = `${width < 480 ? quality(y).short : quality(y).text}${isScore(y) ? "" : ", nats"}`;
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, xTitle));
    svg.append(draw("text", { transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yTitle));
    const clip = (at) => Math.min(height - bottom, Math.max(top, at));
    if (isBound) {
      const at = across.place(data.least);
      svg.append(draw("line", { class: "bound", x1: at, x2: at, y1: top, y2: height - bottom }));
    }
    if (y === "metric") {
      const [middle, low, high] = data.fp32.map(up.place);
      svg.append(draw("rect", { class: "band", x: left, width: width - left - right, y: clip(high), height: clip(low) - clip(high) }));
      svg.append(draw("line", { class: "fp32", x1: left, x2: width - right, y1: middle, y2: middle }));
    }
    if (own) {
      const ends = [...heights, ...shown.map((point) => value(point, x))], least = Math.min(...ends), most = Math.max(...ends);
      const frame = draw("svg", { x: left, y: top, width: width - left - right, height: height - top - bottom });
      frame.append(draw("line", { class: "same", x1: across.place(least) - left, y1: up.place(least) - top, x2: across.place(most) - left, y2: up.place(most) - top }));
      svg.append(frame);
    }
    const numbers = data.fronts[`${y} ${own ? data.size : state.size}`] ?? [];
    const onFront = new Set(numbers);
    for (const point of shown)
      drawn.push({ point, x: across.place(value(point, x)), y: up.place(value(point, y)), family: family(point, onFront.has(point.number)) });
    for (const missed of [false, true]) {
      const dots = drawn.filter((one) => one.family === "grey" && !one.point.feasible === missed);
      if (dots.length) svg.append(draw("path", { class: missed ? "other missed" : "other", d: dots.map((one) => dot(one.x, one.y)).join("") }));
    }
    if (!own && numbers.length) {
      const at = new Map(drawn.filter((one) => !one.point.from).map((one) => [one.point.number, one]));
      const [start, ...rest] = numbers.map((number) => at.get(number));
      svg.append(draw("path", { class: "front", d: `M${start.x},${start.y}${rest.map((one) => `V${one.y}H${one.x}`).join("")}` }));
    }
    spread = (one) => {
      const ends = one.point.ends[y];
      if (!ends) return [];
      const [low, high] = ends.map((end) => clip(up.place(isScore(y) ? end : Math.max(end, data.floor))));
      return [draw("line", { class: "spread", x1: one.x, x2: one.x, y1: low, y2: high })];
    };
    for (const one of drawn.filter((one) => one.point.from)) {
      const before = { ...one.point, ...one.point.from };
      const d = `M${across.place(value(before, x))},${up.place(value(before, y))}L${one.x},${one.y}`;
      svg.append(draw("g", { class: "distilled" }, draw("path", { class: "gain", d }), ...spread(one)));
    }
    svg.append(draw("g", { id: "explore-rings" }));
    const names = draw("g", { "aria-hidden": "true", "pointer-events": "none" });
    for (const one of drawn.filter((one) => one.family !== "grey").sort((a, b) => a.x - b.x)) {
      const { point } = one, classes = `mark ${one.family}${point.feasible ? "" : " missed"}${point.picks.length ? " pick" : ""}`;
      const mark = draw("path", { class: classes, d: shapes[one.family](one.x, one.y), id: `mark-${point.id}`, tabindex: -1, role: "button" });
      mark.setAttribute("aria-label", describe(point).join(", "));
      mark.addEventListener("focus", () => { if (mark.matches(":focus-visible")) hover(one); });
      mark.addEventListener("blur", () => hover(null));
      marks.push(mark);
      if (point.origin === "reference" || (point.origin === "uniform" && new Set(point.bits).size === 1)) {
        const text = point.origin === "reference" ? point.label : point.bits[0];
        const end = one.x > width - right - 80;
        names.append(draw("text", { class: "name", x: one.x + (end ? -11 : 10), y: one.y - 7, "text-anchor": end ? "end" : "start" }, text));
      }
    }
    svg.append(...[...marks].sort((a, b) => a.classList.contains("pick") - b.classList.contains("pick")), names); // picks on top
    (svg.querySelector(`#mark-${CSS.escape(state.map)}`) ?? marks[0])?.setAttribute("tabindex", 0);
    if (!isScore(y) && shown.some((point) => point[y] < data.floor))
      svg.append(draw("text", { x: width - right, y: height - bottom - 6, "text-anchor": "end" }, `damage below ${data.floor} is drawn at ${data.floor}`));
    drawRings();
    drawKey(numbers.length > 0 && !own, isBound, y === "metric", own);
  };
  let spread = () => [];
  const drawRings = () => {
    const rings = svg.querySelector("#explore-rings");
    if (!rings) return;
    const here = drawn.find((one) => one.point === chosen());
    rings.replaceChildren();
    for (const one of new Set([here, hovered].filter(Boolean)))
      rings.append(...spread(one), draw("circle", { class: one === here ? "ring chosen" : "ring", cx: one.x, cy: one.y, r: one === here ? 12 : 10 }));
    for (const mark of marks) mark.setAttribute("aria-pressed", mark.id === `mark-${state.map}`);
  };
  const drawKey = (hasFront, isBound, hasFp32, own) => {
    const present = new Set(drawn.map((one) => one.family));
    const items = [
      [present.has("sampler"), "mark sampler", shapes.sampler(9, 9), "searched map on the front, or a pick"],
      [drawn.some((one) => one.point.picks.length), "mark sampler pick", shapes.sampler(9, 9), "black rim: a pick"],
      [present.has("reference"), "mark reference", shapes.reference(9, 10), "reference: the documented map"],
      [present.has("uniform"), "mark uniform", shapes.uniform(9, 9), "uniform (number: width)"],
      [present.has("plain"), "mark plain", shapes.plain(9, 9), "knapsack on sensitivities"],
      [present.has("distilled-weights"), "mark distilled-weights", shapes["distilled-weights"](9, 9), "distilled: weights"],
      [present.has("distilled-scales"), "mark distilled-scales", shapes["distilled-scales"](9, 9), "distilled: scales"],
      [drawn.some((one) => one.point.from), "gain", "M0,9H18", "from the map as searched"],
      [present.has("grey"), "other", dot(9, 9), "other searched map"],
      [drawn.some((one) => !one.point.feasible), "other missed", dot(9, 9), `hollow: under ${data.least}x ${data.axes.find(({ name }) => name === data.size).text}`],
      [hasFront, "front", "M0,9H18", "front"],
      [isBound, "bound", "M0,9H18", `constraint: ${data.least}x`],
      [hasFp32, "fp32", "M0,9H18", "FP32 and its 95% interval"],
      [own, "same", "M0,9H18", "as much damage on both"],
    ];
    key.replaceChildren(
      ...items.filter(([shown]) => shown).map(([, classes, d, text]) => {
        return make("li", {}, draw("svg", { width: 18, height: 18, "aria-hidden": "true" }, draw("path", { class: classes, d })), text);
      }),
    );
  };
  const describe = (point) => {
    const axis = data.axes.find((one) => one.name === state.size);
    const scores = scoreNames.filter(([name]) => point[name] != null).map(([name, text]) => `${text} ${written(name, point[name])}${point.from ? ` (${written(name, point.from[name])} as searched)` : ""}`);
    const by = point.from || point.by === point.label ? [] : [`proposed by ${point.by}`];
    return [point.label, `${sizeText(point, axis)} ${axis.text}`, ...scores, ...by, ...(point.picks.length ? [`pick: ${point.picks.join("; ")}`] : []), ...(point.feasible ? [] : ["misses the constraint"])];
  };
  const hover = (one) => {
    hovered = one;
    tip.hidden = !one;
    drawRings();
    if (!one) return;
    const [title, ...lines] = describe(one.point);
    tip.replaceChildren(make("b", {}, title), ...lines.map((line) => make("span", {}, line)));
    const room = canvas.clientWidth - tip.offsetWidth, above = one.y - tip.offsetHeight - 16;
    tip.style.left = `${Math.max(0, Math.min(room, one.x - tip.offsetWidth / 2))}px`;
    tip.style.top = `${above > 0 ? above : one.y + 18}px`;
  };
  const nearest = (event) => {
    const box = svg.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, least = event.pointerType === "touch" ? 34 : 24;
    for (const one of drawn) {
      const distance = Math.hypot(one.x - x, one.y - y) + (one.family === "grey" ? 5 : 0); // the families lie on top
      if (distance < least) [best, least] = [one, distance];
    }
    return best;
  };
  svg.addEventListener("pointermove", (event) => { const one = nearest(event); if (one !== hovered) hover(one); });
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hover(null); });
  svg.addEventListener("pointercancel", () => hover(null)); // a finger scrolls
  svg.addEventListener("click", (event) => {
    const one = nearest(event);
    if (one) choose(one.point);
    hover(one && drawn.find((other) => other.point === one.point));
  });
  svg.addEventListener("keydown", (event) => {
    const at = marks.indexOf(document.activeElement);
    if (at < 0) return;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: marks.length - 1 }[event.key];
    const { point } = drawn.find((one) => `mark-${one.point.id}` === marks[at].id);
    if (event.key === "Enter" || event.key === " ") {
      choose(point);
      svg.querySelector(`#mark-${point.id}`)?.focus();
    } else if (event.key === "Escape") hover(null);
    else if (to !== undefined) {
      const mark = marks[Math.max(0, Math.min(marks.length - 1, to))];
      for (const other of marks) other.setAttribute("tabindex", other === mark ? 0 : -1);
      mark.focus();
    } else return;
    event.preventDefault();
  });

  // The chosen map, beside its neighbours on the front and the documented map
  const drawDetail = () => {
    const point = chosen();
    if (!point) return;
    const front = (data.fronts[`${state.view === "unseen" ? "damage" : state.quality} ${state.size}`] ?? []).map((number) => byNumber.get(number)).filter((other) => other !== point);
    const larger = front.filter((other) => other[state.size] <= point[state.size]).at(-1);
    const smaller = front.find((other) => other[state.size] > point[state.size]);
    const documented = data.documented === null ? undefined : byNumber.get(data.documented);
    const own = distilled.filter((other) => other.number === point.number).map((other) => [`distilled: ${other.trained}`, other]);
    const compared = [["this map", point], ...own, ["larger, on the front", larger], ["smaller, on the front", smaller], ["reference", documented]];
    const seen = new Set();
    const maps = compared.filter(([, other]) => other && !seen.has(other) && seen.add(other));
    const rows = [
      ...data.axes.map((axis) => [axis.text, (other) => [times(other[axis.name]), axis.name === "nominal" ? `${(32 / other.nominal).toFixed(2)} bits` : megabytes(axis.fp32 / other[axis.name])]]),
      ...scoreNames.map(([name, text]) => [text, (other) => [other[name] == null ? "" : written(name, other[name]), other.ends[name] ? other.ends[name].map((end) => written(name, end)).join(" to ") : ""]]),
      ["proposed by", (other) => [other.by, ""]],
    ];
    const head = make("tr", {}, make("td"), ...maps.map(([role, other]) =>
      make("th", { scope: "col" }, make("small", {}, role), make("br"), other.from ? "this map" : other === point ? other.label : button(other.label, () => choose(other), { class: "link" }))));
    const body = rows.map(([name, texts]) => make("tr", {}, make("th", { scope: "row" }, name), ...maps.map(([, other]) => {
      const [text, small] = texts(other);
      return make("td", {}, text, ...(small ? [make("small", {}, small)] : []));
    })));
    detail.replaceChildren(
      make("h3", {}, point.label),
      make("p", { class: "note" }, [...(point.picks.length ? [`Pick: ${point.picks.join("; ")}.`] : []), ...(point.feasible ? [] : ["It misses the constraint."])].join(" ")),
      make("table", { class: "figures" }, make("thead", {}, head), make("tbody", {}, ...body)),
    );
    below.replaceChildren(
      make("div", { class: "maps" }, ...maps.filter(([, other]) => other.bits).map(([role, other]) => bitMap(other, point, role))),
      widthKey(point, maps.length > own.length + 1),
      make("h3", {}, `Export ${point.label}`),
      commands(point),
    );
  };
  const bitMap = (map, point, role) => {
    const rows = data.rows.map(() => []);
    data.cells.forEach(([layer, row, column], at) => rows[row].push({ layer, column, width: map.bits[at], differs: Boolean(point.bits) && map.bits[at] !== point.bits[at] }));
    const cell = ({ layer, width, differs }, span) => make("td", { class: `w${width}${differs ? " differs" : ""}`, colspan: span, title: `${layer}: ${width} bits` }, width);
    const body = rows.map((cells, row) => {
      const line = make("tr", {}, make("th", { scope: "row", title: data.rows[row] }, data.rows[row]));
      if (cells.some(({ column }) => column === null)) {
        const span = Math.max(1, Math.floor(data.columns.length / cells.length));
        line.append(...cells.map((one) => cell(one, cells.length === 1 ? data.columns.length || 1 : span)));
      } else line.append(...data.columns.map((_, column) => { const one = cells.find((other) => other.column === column); return one ? cell(one, null) : make("td"); }));
      return line;
    });
    return make("figure", {}, make("figcaption", {}, make("small", {}, role), make("br"), map.label), make("table", { class: "bits", "aria-label": `Bits of each layer, ${map.label}` }, make("tbody", {}, ...body)));
  };
  const widthKey = (point, compares) => {
    const widths = [2, 3, 4, 5, 6, 7, 8].map((width) => make("span", { class: `w${width}` }, String(width)));
    const parts = data.columns.length ? ` Left to right: ${data.columns.join(", ")}.` : "";
    const note = make("p", { class: "note widths" }, "Bits: ", ...widths, `${compares && point.bits ? " Outlined: differs from this map." : ""}${parts}`);
    if (!point.bits) note.append(" The bits of this map are in ", make("a", { href: "trials.csv" }, "trials.csv"), ".");
    return note;
  };
  const commands = (point) =>
    make("div", { class: "commands" }, ...Object.entries(data.commands).map(([format, parts]) => {
      const code = make("code", { tabindex: 0 }, parts.join(point.number));
      return make("div", {}, button("Copy", (event) => copy(code, event.currentTarget), { "aria-label": `Copy the ${format} command` }), code);
    }));
  const copy = async (code, pressed) => {
    getSelection().selectAllChildren(code); // to be copied by hand, if the browser refuses
    try {
      await navigator.clipboard.writeText(code.textContent);
      pressed.textContent = "Copied";
    } catch { pressed.textContent = "Ctrl+C"; }
  };

  // The table that the plot is drawn from
  const FEW = 400;
  const columns = [
    ["map", (point) => [point.label, null]],
    ["proposed by", (point) => [point.by, null]],
    ...data.axes.map((axis) => [axis.text, (point) => [times(point[axis.name]), point[axis.name]]]),
    ...scoreNames.map(([name, text]) => [text, (point) => (point[name] == null ? ["", ""] : [written(name, point[name]), point[name]])]),
    ["meets the constraint", (point) => [point.feasible ? "yes" : "no", null]],
  ];
  const rowOf = (point) => make("tr", { "data-number": point.id }, ...columns.map(([, cell], at) => {
    const [text, sort] = cell(point);
    if (!at) return make("th", { scope: "row" }, button(text, () => { choose(point); }, { class: "link" }));
    return make("td", sort === null ? {} : { class: "n", "data-sort": sort }, text);
  }));
  const listed = points.length <= FEW ? points : data.maps;
  const bySize = (some) => [...some].sort((a, b) => a[data.size] - b[data.size] || a.number - b.number);
  const body = make("tbody", {}, ...bySize([...listed, ...distilled]).map(rowOf));
  const table = make("table", { class: "sortable", "aria-label": "The maps of the plot" }, make("thead", {}, make("tr", {}, ...columns.map(([text]) => make("th", { scope: "col" }, text)))), body);
  const all = make("details", { id: "explore-table" }, make("summary", {}, `The same maps as a table (${(points.length + distilled.length).toLocaleString("en")})`), make("div", { class: "wide" }, table));
  if (listed !== points) {
    const rest = button(`List the other ${others.length.toLocaleString("en")} maps too`, () => { body.append(...bySize(others).map(rowOf)); rest.remove(); });
    all.append(rest);
  }
  all.open = fragment().get("table") === "open";
  all.addEventListener("toggle", () => keep({ table: all.open ? "open" : null }));

  const show = () => {
    for (const name of ["size", "quality", "view"]) {
      const input = document.getElementById(`explore-${name}-${state[name]}`);
      if (input) input.checked = true;
    }
    document.getElementById("explore-quality").disabled = state.view === "unseen";
    hover(null);
    drawPlot();
    drawDetail();
    for (const row of body.rows) row.classList.toggle("chosen", row.dataset.number === state.map);
  };
  const hint = make("p", { class: "note" }, "Point at a map for its figures; click or tap it for its bits and the commands that export it.");
  explore.append(hint, spoken, switches, make("div", { class: "halves" }, make("div", {}, canvas, key), detail), below, all);
  explore.hidden = false;
  const picture = document.getElementById("front-picture");
  picture.open = false;
  addEventListener("beforeprint", () => { picture.open = true; });
  addEventListener("hashchange", () => { read(); show(); });
  let width = 0;
  new ResizeObserver(() => {
    if (canvas.clientWidth === width) return;
    width = canvas.clientWidth;
    drawPlot();
  }).observe(canvas);
  read();
  show();
}
