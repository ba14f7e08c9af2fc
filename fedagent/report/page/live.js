
// While a run goes on: ask for what has changed, every two seconds.
(() => {
  const axes = ["updates", "versions", "clock", "wall", "bytes"];
  const numbers = (value) => Array.isArray(value) ? value.map(numbers) : value ?? NaN;
  const fill = (id, html) => {
    const place = document.getElementById(id);
    if (place && html !== undefined) place.innerHTML = html;
  };
  let shape = null;
  const begun = Date.now();
  const draw = (said) => {
    const models = Bokeh.documents.flatMap((one) => [...one._all_models.values()]);
    const sources = Object.fromEntries(models.filter((one) => one.type === "ColumnDataSource").map((one) => [one.name, one]));
    for (const [name, columns] of Object.entries(said.sources))
      if (sources[name] && !/^curve-\d+$/.test(name))
        sources[name].data = Object.fromEntries(Object.entries(columns).map(([key, values]) => [key, numbers(values)]));
    const axis = axes[models.find((one) => one.name === "axis")?.active];
    for (let n = 0; axis && sources[`curve-${n}`]; n++) {
      sources[`curve-${n}`].data = sources[`curve-${n}-${axis}`].data;
      const reached = sources[`reached-${n}`];
      reached.data = {...reached.data, x: reached.data[`x_${axis}`]};
    }
  };
  const refresh = async () => {
    let said = null;
    try {
      said = await (await fetch("data.json")).json();
    } catch {
      fill("live", "<section class=warn><h2>Progress</h2><p>Nobody answers any more: the run is over, or the watcher has ended. What is shown was the last.</p></section>");
    }
    if (said !== null) {
      shape ??= said.shape;
      if (said.shape === shape) draw(said);
      else if (Date.now() - begun > 10000) location.reload();
      for (const id of ["live", "cards", "nodes", "log"]) fill(id, said[id]);
    }
    setTimeout(refresh, 2000);
  };
  setTimeout(refresh, 500);
})();
