// Ink and lines of the charts follow the page: light, dark, or paper.
(() => {
  const root = document.documentElement;
  const asked = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const paint = () => {
    const style = getComputedStyle(root);
    const [ink, faint, line] = ["--ink", "--faint", "--line"].map((name) => style.getPropertyValue(name).trim());
    for (const document_ of Bokeh.documents)
      for (const model of document_._all_models.values()) {
        if (model.type === "Title") model.setv({text_color: ink});
        if (model.type === "Grid") model.setv({grid_line_color: line});
        if (model.type.endsWith("Axis"))
          model.setv({axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: faint, major_tick_line_color: faint});
      }
  };
  const show = (theme) => { root.dataset.theme = theme; paint(); };
  const now = () => chosen ?? (asked.matches ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => {
    chosen = now() === "dark" ? "light" : "dark";
    show(chosen);
  });
  asked.addEventListener("change", () => show(now()));
  // Charts are laid out and painted later than a browser prints: paper gets pictures of them.
  const pictures = [];
  window.addEventListener("beforeprint", () => {
    show("light");
    for (const model of Bokeh.documents[0]?.roots() ?? [])
      if (model.type === "Figure") {
        const chart = Bokeh.index.get_by_id(model.id);
        const picture = chart.export("png", true).canvas;
        picture.className = "paper";
        picture.removeAttribute("style");
        chart.el.parentElement.after(picture);
        chart.el.parentElement.classList.add("screen");
        pictures.push(picture);
      }
  });
  window.addEventListener("afterprint", () => {
    while (pictures.length) pictures.pop().remove();
    show(now());
  });
  root.dataset.theme = now();
  const wait = () => (Bokeh.documents.length ? (paint(), (root.dataset.drawn = "yes")) : setTimeout(wait, 20));
  wait();
})();
