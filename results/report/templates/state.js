// The page's state is in its fragment, as #size=packed&map=17, so that a link or a reload brings it back.
const fragment = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
const keep = (changes) => {
  const all = fragment();
  for (const [name, value] of Object.entries(changes))
    if (value === null) all.delete(name);
    else all.set(name, value);
  history.replaceState(null, "", String(all) ? `#${all}` : location.pathname + location.search);
};
