// While the search runs, the page loads itself again; it keeps its fragment, its place and what has the focus.
const running = document.getElementById("running");
if (running) {
  const LEAST_S = 30, MOST_S = 600, GIVEN_UP_S = 86400, IDLE_S = 4;
  const written = Number(running.dataset.written);
  const age = () => Math.max(0, Date.now() / 1000 - written);
  const note = document.createElement("span"), button = document.createElement("button");
  button.type = "button";
  let on = fragment().get("refresh") !== "off", touched = 0;
  for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "scroll"])
    addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
  const show = () => {
    const time = new Date(written * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const late = age() > 900 ? `; that is long ago: ${running.dataset.check} says whether the search still runs` : "";
    note.textContent = ` Written at ${time}${late}. ${on ? "This page refreshes itself. " : ""}`;
    button.textContent = on ? "Stop refreshing" : "Refresh by itself";
  };
  button.addEventListener("click", () => {
    on = !on;
    keep({ refresh: on ? null : "off" });
    show();
  });
  // A search that was killed leaves such a page behind: the longer nothing comes, the rarer the page looks.
  const wait_s = Math.min(MOST_S, Math.max(LEAST_S, age() / 4));
  let due = Date.now() + 1000 * wait_s;
  setInterval(() => {
    if (!on || document.hidden || Date.now() < due || Date.now() - touched < 1000 * IDLE_S || age() > GIVEN_UP_S) return;
    due = Infinity;
    store("bitfront focus", document.activeElement?.id ?? "");
    store("bitfront place", String(scrollY));
    location.reload();
  }, 1000);
  running.append(note, button);
  show();
}
function store(name, value) {
  try { sessionStorage.setItem(name, value); } catch { /* a browser may refuse storage to files */ }
}
function taken(name) {
  try {
    const value = sessionStorage.getItem(name);
    sessionStorage.removeItem(name);
    return value;
  } catch { return null; }
}
const focused = taken("bitfront focus"), place = taken("bitfront place");
if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
if (place !== null) addEventListener("load", () => scrollTo(0, Number(place)));
