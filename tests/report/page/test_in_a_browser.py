"""Pages as Chromium opens them: from the disk, without a network.

They are skipped where there is no Chromium, unless FEDAGENT_NEEDS_CHROMIUM is set, as in CI.
FEDAGENT_SCREENSHOTS names a folder for pictures to look at.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.page.browser import Browser, chromium, missing
from benchmarks.page.made_up import write_run
from fedagent.report.page import live
from fedagent.report.page.write import write_page

from .conftest import NASTY

LACKS = missing()
pytestmark = pytest.mark.skipif(
    LACKS is not None and "FEDAGENT_NEEDS_CHROMIUM" not in os.environ, reason=str(LACKS)
)
ROOT = Path(__file__).parents[3]
SMALL = (
    "app.model=linear runtime=inline fleet.num_nodes=8 partition=iid stopping.max_updates=40 "
    "cohort=4 display=false"
)
FIGURES = """
const found = {};
for (const root of Bokeh.documents[0].roots())
  if (root.type === "Figure") {
    const canvas = Bokeh.index.get_by_id(root.id).export("png", false).canvas;
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const colours = new Set();
    for (let i = 0; i < data.length; i += 4)
      if (data[i + 3] > 200)
        colours.add([data[i] >> 5, data[i + 1] >> 5, data[i + 2] >> 5].join());
    found[root.name] = colours.size;
  }
return found;
"""
MODEL = "const model = (name) => Bokeh.documents[0].get_model_by_name(name);"
INSIDE = """
const below = (node) => [...(node.shadowRoot?.children ?? []), ...node.children];
const all = (node) => [node, ...below(node).flatMap(all)];
const inside = (selector) => all(document.body).filter((node) => node.matches(selector));
"""
CELLS = """
const rows = inside(".slick-row").sort((a, b) => a.offsetTop - b.offsetTop);
return rows.map((row) => [...row.querySelectorAll(".slick-cell")].map((one) => one.innerText));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert LACKS is None, LACKS
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    wanted = os.environ.get("FEDAGENT_SCREENSHOTS")
    return Path(wanted) if wanted else tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "run"
    words = [*SMALL.split(), f"output_dir={folder}"]
    command = [sys.executable, "-m", "fedagent", "run", *words]
    where = tmp_path_factory.mktemp("cwd")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, f"hydra.run.dir={where}"],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"Look: {(folder / 'page.html').as_uri()}" in done.stdout
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for number in range(500):
        how = {"strategy": f"rule-{number // 5 % 10}", "learning_rate": number // 50 / 10}
        write_run(folder / str(number), num_jobs=60, seed=number % 5, **how)
    write_page([folder], folder / "page.html")
    return folder / "page.html"


def test_the_page_of_a_run_opens_without_a_network_and_draws_every_chart(
    browser: Browser, real_run, pictures
):
    browser.open((real_run / "page.html").as_uri())
    drawn = browser.js(FIGURES)
    assert set(drawn) >= {"metric-0", "timeline", "staleness", "shares", "parts"}
    assert all(colours >= 3 for colours in drawn.values()), drawn
    asked = "return performance.getEntriesByType('resource').map((one) => one.name)"
    assert [url for url in browser.js(asked) if not url.startswith(("data:", "blob:"))] == []
    assert browser.errors() == []
    text = browser.js("return document.body.innerText")
    for said in ("to beat: nearest mean image", "fedagent run app.model=linear", "sha256", "torch"):
        assert said in text
    assert browser.js("return [...document.images].every((one) => one.naturalWidth > 0)")
    browser.screenshot(pictures / "run-light.png")


def test_dark_is_asked_for_by_the_system_or_a_click_and_print_is_light(
    browser: Browser, real_run, pictures
):
    browser.open((real_run / "page.html").as_uri())
    page = "return getComputedStyle(document.body).backgroundColor"
    ink = MODEL + "return JSON.stringify(model('metric-0').below[0].major_label_text_color)"
    light = browser.js(page), browser.js(ink)
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    theme = "return document.documentElement.dataset.theme === '{}'"
    browser.command("Emulation.setEmulatedMedia", features=[feature])
    browser.wait(theme.format("dark"))
    dark = browser.js(page), browser.js(ink)
    browser.screenshot(pictures / "run-dark.png")
    browser.command("Emulation.setEmulatedMedia", features=[])
    browser.wait(theme.format("light"))
    assert (browser.js(page), browser.js(ink)) == light
    browser.driver.find_element("id", "theme").click()
    assert (browser.js(page), browser.js(ink)) == dark
    assert all(a != b for a, b in zip(light, dark, strict=True))
    assert browser.printed(pictures / "run.pdf").startswith(b"%PDF")
    assert (browser.js(page), browser.js(ink)) == dark, "what is printed is light, not the page"
    browser.command("Emulation.setEmulatedMedia", media="print")
    assert not browser.driver.find_element("id", "theme").is_displayed()
    browser.js("dispatchEvent(new Event('beforeprint'))")
    heights = "return [...document.querySelectorAll('.paper')].map((one) => one.offsetHeight)"
    assert len(browser.js(heights)) == len(browser.js(FIGURES))
    assert min(browser.js(heights)) > 100, "charts are printed, too"
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert browser.js(heights) == []
    browser.command("Emulation.setEmulatedMedia", media="")
    assert browser.errors() == []


def test_the_switch_changes_what_the_metric_is_drawn_against(browser: Browser, real_run):
    browser.open((real_run / "page.html").as_uri())
    label = MODEL + "return model('metric-0').below[0].axis_label"
    end = MODEL + "return model('metric-0').x_range.end"
    seen = []
    for place, starts in enumerate(
        ("updates", "versions", "virtual time", "wall clock", "traffic")
    ):
        button = INSIDE + f"inside('.bk-btn-group .bk-btn')[{place}].click()"
        browser.js(button)
        browser.wait(f"{MODEL} return model('metric-0').below[0].axis_label.startsWith('{starts}')")
        seen.append((browser.js(label), browser.js(end)))
    browser.js(INSIDE + "inside('.bk-btn-group .bk-btn')[0].click()")
    browser.wait(f"{MODEL} return Math.abs(model('metric-0').x_range.end - {seen[0][1]}) < 1e-6")
    assert 40 <= seen[0][1] <= 50, "as far as there are updates"
    assert len({label for label, _ in seen}) == 5
    assert browser.errors() == []


def test_a_box_on_the_timeline_zooms_and_the_circle_goes_back(browser: Browser, real_run):
    from selenium.webdriver import ActionChains

    browser.open((real_run / "page.html").as_uri())
    span = MODEL + "const r = model('timeline').x_range; return [r.start, r.end]"
    place = INSIDE + MODEL + "return Bokeh.index.get_by_id(model('timeline').id).el"
    before = browser.js(span)
    chart = browser.js(place)
    browser.js("arguments[0].scrollIntoView({block: 'center'})", chart)
    drag = ActionChains(browser.driver).move_to_element_with_offset(chart, -100, -30)
    drag.click_and_hold().move_by_offset(150, 60).release().perform()
    browser.wait(f"{MODEL} return model('timeline').x_range.start > {before[0]} + 1e-9")
    after = browser.js(span)
    assert after[1] - after[0] < 0.5 * (before[1] - before[0])
    browser.js(MODEL + "model('timeline').reset.emit()")
    browser.wait(f"{MODEL} return Math.abs(model('timeline').x_range.start - {before[0]}) < 1e-9")
    assert browser.errors() == []


def test_500_runs_are_filtered_sorted_and_saved_as_csv(browser: Browser, many, pictures):
    browser.open(many.as_uri())
    assert "500 runs" in browser.js("return document.body.innerText")
    browser.wait(INSIDE + "return inside('.slick-row').length > 3")
    browser.screenshot(pictures / "500-light.png")
    box = browser.js(INSIDE + "return inside('input.bk-input')[0]")
    box.send_keys("rule-7 seed=3")
    left = MODEL + "return model('table').view.filter.indices.length"
    browser.wait(f"{left} === 10")
    browser.wait(INSIDE + "return inside('.slick-row').length === 10")
    rows = browser.js(INSIDE + CELLS)
    assert all(cells[:2] == ["rule-7", "3"] for cells in rows)
    rate = "inside('.slick-header-column').find((one) => one.innerText.includes('learning_rate'))"
    browser.js(f"{INSIDE} {rate}.click()")
    browser.wait(f"{INSIDE} return {rate}.querySelector('.slick-sort-indicator-asc') !== null")
    rising = [float(cells[2]) for cells in browser.js(INSIDE + CELLS)]
    browser.js(f"{INSIDE} {rate}.click()")
    browser.wait(f"{INSIDE} return {rate}.querySelector('.slick-sort-indicator-desc') !== null")
    falling = [float(cells[2]) for cells in browser.js(INSIDE + CELLS)]
    assert (rising, falling) == (sorted(rising), sorted(falling, reverse=True))
    assert rising != falling
    browser.js(
        "window.saved = []; const make = URL.createObjectURL;"
        "const keep = (text) => saved.push(text);"
        "URL.createObjectURL = (blob) => { blob.text().then(keep); return make(blob); };"
    )
    browser.js(INSIDE + "inside('.bk-btn').find((one) => one.innerText === 'CSV').click()")
    browser.wait("return saved.length === 1")
    lines = browser.js("return saved[0]").splitlines()
    assert len(lines) == 11
    assert lines[0].startswith('"strategy","seed","learning_rate","folder","end"')
    assert all(line.startswith('"rule-7","3"') for line in lines[1:])
    assert browser.errors() == []


def test_what_others_have_written_is_text_and_no_html(browser: Browser, tmp_path):
    for seed in (0, 1):
        folder = write_run(tmp_path / "runs" / f"{seed}", seed=seed, strategy=NASTY, metric=NASTY)
        text = (folder / "jobs.jsonl").read_text().replace("made-up", "</script><b>x")
        (folder / "jobs.jsonl").write_text(text)
        (folder / "plots").mkdir()
        (folder / "plots" / "text.txt").write_text(NASTY)
    (tmp_path / "runs" / "1" / "summary.json").unlink()
    for source, target in (
        ("runs/0", "one.html"),
        ("runs/1", "going-on.html"),
        ("runs", "all.html"),
    ):
        write_page([tmp_path / source], tmp_path / target)
        browser.open((tmp_path / target).as_uri())
        assert browser.js("return document.title") != "taken"
        assert browser.js("return document.querySelectorAll('main b b, main pre b').length") == 0
        assert all(colours >= 2 for colours in browser.js(FIGURES).values())
        assert browser.errors() == []


def test_the_live_page_goes_on_with_its_run(browser: Browser, tmp_path, pictures):
    folder = write_run(tmp_path / "run", num_jobs=60, is_over=False)
    listening, over = live.listen(0), threading.Event()
    port, view = listening.getsockname()[1], live.LiveView(folder)
    thread = threading.Thread(target=live.serve, args=(view, listening, over.wait))
    thread.start()
    try:
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait("return document.getElementById('nodes').innerText.includes('20 nodes')")
        before = browser.js(MODEL + "return model('curve-0').data.x[0].length")
        browser.js(INSIDE + "inside('.bk-btn-group .bk-btn')[0].click()")
        browser.screenshot(pictures / "live.png")
        more = write_run(tmp_path / "more", num_jobs=100, is_over=False)
        for name in ("metrics.jsonl", "jobs.jsonl"):
            (more / name).replace(folder / name)
        browser.wait(f"{MODEL} return model('curve-0').data.x[0].length > {before}")
        assert browser.js(MODEL + "return model('curve-0').data.x[0][0]") == 10, "updates, as asked"
        assert browser.errors() == []
    finally:
        over.set()
        thread.join(30)
    browser.wait("return document.body.innerText.includes('Nobody answers any more')")
