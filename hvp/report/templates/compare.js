"use strict";
// Texts at what is pointed at, and figures and data as files. The figures are there without it.
(() => {
  const tip = document.getElementById("tip");
  const light = JSON.parse(document.getElementById("light").textContent);
  const NEAR = 14; // pixels
  document.documentElement.classList.add("scripted");

  function nearest(svg, x, y) {
    let best = null, least = NEAR;
    for (const mark of svg.querySelectorAll("[data-hover]")) {
      const box = mark.getBoundingClientRect();
      const distance = Math.hypot(x - (box.left + box.right) / 2, y - (box.top + box.bottom) / 2);
      if (distance < least) [best, least] = [mark, distance];
    }
    return best;
  }

  function point(event) {
    const svg = event.target.closest(".plot svg");
    const mark = svg && nearest(svg, event.clientX, event.clientY);
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.hover;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY > height + 20 ? event.clientY - height - 12 : event.clientY + 20}px`;
  }

  // The drawing that is shown, as a file by itself: with the colours of a white page.
  function drawing(plot) {
    const shown = [...plot.querySelectorAll("svg")].find((svg) => svg.getClientRects().length);
    const svg = shown.cloneNode(true);
    const [, , width, height] = svg.getAttribute("viewBox").split(" ");
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    svg.setAttribute("font-family", "DejaVu Sans, Verdana, Arial, sans-serif");
    return new XMLSerializer().serializeToString(svg).replace(/var\(--(\w+)\)/g, (all, name) => light[name] ?? all);
  }

  function take(button) {
    const plot = button.closest(".plot");
    const kind = button.dataset.take;
    const text = kind === "svg" ? drawing(plot) : plot.querySelector(".data").textContent;
    const type = kind === "svg" ? "image/svg+xml" : "text/csv";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = `${plot.dataset.name}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  for (const kind of ["pointermove", "pointerdown"]) document.addEventListener(kind, point);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-take]");
    if (button) take(button);
  });
})();
