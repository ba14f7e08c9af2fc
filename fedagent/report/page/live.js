
// While a run goes on: ask for what has changed, every two seconds.
(() => {
  const axes = ["updates", "versions", "clock", "wall", "bytes"];
  const fill = (id, html) => { const place = document.getElementById(id); if (place && html !== undefined) place.innerHTML = html; };
  const numbers = (value) => Array.isArray(value) ? value.map(numbers) : value ?? NaN;
  let shape = null, loaded = Date.now();
  const refresh = async () => {
    try {
      const said = await (await fetch("data.json")).json();
      shape ??= said.shape;
      if (said.shape !== shape && Date.now() - loaded > 10000) { location.reload(); return; }
      for (const [id, html] of Object.entries({live: said.live, cards: said.cards, nodes: said.nodes, log: said.log})) fill(id, html);
      for (const doc of said.shape === shape ? Bokeh.documents : []) {
        const put = (name, columns) => { const source = doc.get_model_by_name(name); if (source) source.data = columns; };
        for (const [name, columns] of Object.entries(said.sources)) {
          if (/^curve-\d+$/.test(name)) continue;
          put(name, Object.fromEntries(Object.entries(columns).map(([key, values]) => [key, numbers(values)])));
        }
        const active = doc.get_model_by_name("axis");
        for (let n = 0; active && doc.get_model_by_name(`curve-${n}`); n++)
          put(`curve-${n}`, doc.get_model_by_name(`curve-${n}-${axes[active.active]}`).data);
      }
    } catch (error) {
      fill("live", "<section class=warn><h2>Progress</h2><p>Nobody answers any more: the run is over, or the watcher has ended. What is shown was the last.</p></section>");
    }
    setTimeout(refresh, 2000);
  };
  setTimeout(refresh, 2000);
})();
