"use strict";
(() => {
  // Theme: as the system has it, until the reader chooses.
  const root = document.documentElement, theme = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("mtl-nlp-theme"); } catch { return null; } };
  const is = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const show = () => { theme.textContent = is() === "dark" ? "Light page" : "Dark page"; };
  const asked = new URLSearchParams(location.search).get("theme") || kept();
  if (asked === "dark" || asked === "light") root.dataset.theme = asked;
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = is() === "dark" ? "light" : "dark";
    try { localStorage.setItem("mtl-nlp-theme", root.dataset.theme); } catch { /* a page without storage */ }
    show();
  });
  dark.addEventListener("change", show);
  show();

  // Tasks: all unfolded, or all folded; all that is folded is printed.
  const tasks = [...document.querySelectorAll("details.task")], fold = document.getElementById("fold");
  const folded = () => tasks.some((task) => !task.open);
  const name = () => { fold.textContent = folded() ? "Unfold all" : "Fold all"; };
  if (tasks.length > 1) {
    fold.hidden = false;
    fold.addEventListener("click", () => { const open = folded(); tasks.forEach((task) => { task.open = open; }); name(); });
    tasks.forEach((task) => task.addEventListener("toggle", name));
    name();
  }
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.matches("details")) { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  reveal();
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.task:not([open]), details.source:not([open])")];
    closed.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach((one) => { one.open = false; }));

  // Line charts: a cross-hair with the values, by pointer or arrow keys.
  const points = (path) => path.getAttribute("d").slice(1).split("L").map((pair) => pair.split(" ").map(Number));
  const shown = (value) => {
    const size = Math.abs(value);
    return size >= 1000 ? Math.round(value).toLocaleString("en") : size && size < 0.001 ? value.toExponential(1) : value.toFixed(3);
  };
  document.querySelectorAll("svg[data-axes]").forEach((svg) => {
    const [xl, xh, x0, x1, yl, yh, y0, y1] = svg.dataset.axes.split(" ").map(Number);
    const lines = [...svg.querySelectorAll("path.line")].map((path) => [path.dataset.name, points(path)]);
    if (!lines.length) return;
    const steps = [...new Set(lines.flatMap(([, line]) => line.map(([x]) => x)))].sort((a, b) => a - b);
    let rule = null, box = null, at = -1;
    const hide = () => { if (rule) rule.remove(); if (box) box.remove(); rule = box = null; at = -1; };
    const put = (place) => {
      at = Math.max(0, Math.min(place, steps.length - 1));
      const x = steps[at];
      if (!rule) {
        rule = document.createElementNS("http://www.w3.org/2000/svg", "line");
        rule.setAttribute("class", "cross");
        rule.setAttribute("y1", y1);
        rule.setAttribute("y2", y0);
        svg.append(rule);
        box = document.createElement("div");
        box.className = "told";
        box.setAttribute("role", "status");
        svg.parentNode.append(box);
      }
      rule.setAttribute("x1", x);
      rule.setAttribute("x2", x);
      const step = xl + ((x - x0) / (x1 - x0)) * (xh - xl);
      const rows = lines.map(([name, line]) => {
        const near = line.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
        return (lines.length > 1 ? name + " " : "") + shown(yl + ((near[1] - y0) / (y1 - y0)) * (yh - yl));
      });
      box.replaceChildren(...["step " + Math.round(step), ...rows].map((row) => {
        const line = document.createElement("div");
        line.textContent = row;
        return line;
      }));
      const scale = svg.clientWidth / svg.viewBox.baseVal.width;
      const left = x * scale + 8;
      box.style.left = Math.max(0, Math.min(left, svg.parentNode.clientWidth - box.offsetWidth)) + "px";
    };
    svg.addEventListener("pointermove", (event) => {
      const x = ((event.clientX - svg.getBoundingClientRect().left) / svg.clientWidth) * svg.viewBox.baseVal.width;
      put(steps.reduce((best, step, i) => (Math.abs(step - x) < Math.abs(steps[best] - x) ? i : best), 0));
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
      if (event.key === "Escape") hide();
      if (move === undefined) return;
      event.preventDefault();
      put((at < 0 ? (move > 0 ? -1 : steps.length) : at) + move);
    });
  });
})();
