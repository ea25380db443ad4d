"use strict";
// Draws each figure of the part and axis chosen, in the colours of the page.
(() => {
  const content = (id) => document.getElementById(id).textContent;
  const night = Object.entries(JSON.parse(content("night")));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 46rem)");
  const root = document.documentElement;
  const figures = {};

  function inTheme(text) {
    return JSON.parse(dark.matches ? night.reduce((t, [day, to]) => t.replaceAll(day, to), text) : text);
  }

  function read() {
    Object.assign(figures, inTheme(content("figures")));
    figures.template = inTheme(content("template"));
  }

  function chosen(plot) {
    const axis = document.querySelector("input[name=axis]:checked").value;
    const members = figures[plot.dataset.figure.replace("AXIS", axis === "near" ? "linear" : axis)];
    const figure = structuredClone(members[document.getElementById("part").value] ?? members[""]);
    const { near } = figure.layout.meta ?? {};
    if (near && axis === "near") figure.layout.xaxis.range = near;
    return figure;
  }

  function axisAndPart() {
    const axis = document.querySelector("input[name=axis]:checked").value;
    return `${axis} ${document.getElementById("part").value}`;
  }

  async function draw(plot) {
    const figure = chosen(plot);
    figure.layout.template = figures.template;
    figure.layout.uirevision = axisAndPart();
    figure.layout.dragmode = narrow.matches ? false : "zoom"; // a finger scrolls the page
    const note = plot.parentElement.querySelector(".note");
    if (note) note.textContent = figure.layout.meta?.note ?? "";
    await Plotly.react(plot, figure.data, figure.layout, {
      responsive: true,
      displayModeBar: false,
    });
  }

  async function drawAll() {
    const plots = [...document.querySelectorAll(".plot")];
    for (const plot of plots) await draw(plot);
    root.dataset.drawn = plots.length;
  }

  read();
  document.getElementById("part").addEventListener("change", drawAll);
  for (const input of document.querySelectorAll("input[name=axis]")) input.addEventListener("change", drawAll);
  for (const query of [dark, narrow]) query.addEventListener("change", () => { read(); drawAll(); });
  drawAll();
})();
