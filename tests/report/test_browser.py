"""The page in a real browser: it works from a file, asks for nothing beyond itself, and says nothing wrong."""

import shutil
from urllib.parse import urlparse

import nibabel
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import Watched, chromium, needs_browser

from study_files import StudyFiles
from voxloss.data.probabilities import write_probabilities
from voxloss.report import build_report
from voxloss.report.figures import scores as figures
from voxloss.report.page.server import report_server
from voxloss.report.record import open_record

pytestmark = [needs_browser, pytest.mark.browser]

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(reported_study, tmp_path_factory):
    """The report alone, moved away from its study: one self-contained folder."""
    folder = tmp_path_factory.mktemp("elsewhere") / "report"
    shutil.copytree(reported_study / "report", folder)
    return folder


@pytest.fixture
def watched(browser, report):
    opened = Watched(browser)
    opened.page.goto((report / "index.html").as_uri())
    yield opened
    opened.page.context.close()


def column(page, table, place):
    return page.locator(f"{table} tbody tr").evaluate_all(f"rows => rows.map(row => row.cells[{place}].textContent)")


def test_the_page_asks_only_for_its_own_files(watched, report):
    page = watched.page
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    watched.open_case(page.locator("button.open").first.text_content())
    assert watched.requests
    for url in watched.requests:
        kind = urlparse(url)
        assert kind.scheme in ("data", "blob") or url.startswith(report.as_uri()), url
    assert watched.complaints == []
    assert all(page.evaluate("Array.from(document.images, image => image.naturalWidth > 0)"))


def test_a_table_sorts_both_ways_with_what_is_missing_last(watched):
    page = watched.page
    heading = page.locator("#cases-table thead th", has_text="Spread")
    heading.get_by_role("button").click()
    spreads = [float(text) for text in column(page, "#cases-table", 3)]
    assert spreads == sorted(spreads, reverse=True) and heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").press("Enter")  # from the keyboard too
    assert [float(text) for text in column(page, "#cases-table", 3)] == spreads[::-1]
    page.locator("#scores thead button", has_text="Loss").click()
    page.locator("#scores thead button", has_text="Loss").click()
    names = column(page, "#scores table", 0)
    assert names == sorted(names, key=str.lower)


def test_the_cases_filter(watched):
    page = watched.page
    page.locator("[data-filter=cases-table]").fill("case_003")
    shown = page.locator("#cases-table tbody tr:visible")
    assert shown.count() == 1 and "case_003" in shown.first.text_content()
    assert page.get_by_text("1 of 9").is_visible()


def test_a_case_opens_with_two_overlays_on_an_image(watched):
    page = watched.page
    watched.open_case("case_002")
    for side in (0, 1):
        seen = watched.colours(side)
        assert seen["grey"] > 2000 and seen["green"] + seen["magenta"] > 50, seen
    assert page.locator("#viewer-title").text_content() == "case_002"
    page.locator("#viewer-reference").fill("0")
    page.locator("#viewer-prediction").fill("0")
    page.wait_for_timeout(300)
    bare = watched.colours(1)
    assert bare["green"] == bare["magenta"] == 0
    page.locator("#viewer-reference").fill("1")
    page.wait_for_timeout(300)
    assert watched.colours(1)["green"] > 50 and watched.colours(1)["magenta"] == 0


def test_cross_hairs_are_linked_and_jump_to_the_largest_error(watched):
    page = watched.page
    watched.open_case("case_002")
    place = "voxlossViewer.panes.map(pane => Array.from(pane.niivue.scene.crosshairPos))"
    page.locator(".pane .error").nth(1).click()
    page.wait_for_timeout(200)
    left, right = page.evaluate(place)
    assert left == pytest.approx(right, abs=1e-4)
    box = page.locator(".stage canvas").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.55, box["y"] + box["height"] * 0.45)
    page.wait_for_timeout(300)
    moved, other = page.evaluate(place)
    assert moved == pytest.approx(other, abs=1e-4) and moved != pytest.approx(left, abs=1e-3)


def test_lesions_are_jumped_to_and_those_missed_are_marked(watched):
    page = watched.page
    watched.open_case("case_002")
    label = page.locator(".pane .lesion").first
    count = int(label.text_content().split()[0])
    assert count >= 1
    for number in [*range(1, count + 1), 1]:  # and around
        page.locator(".pane [data-lesion='1']").first.click()
        page.wait_for_timeout(100)
        assert label.text_content().startswith(f"lesion {number} of {count}: ")
    page.locator(".pane [data-lesion='-1']").first.click()
    page.wait_for_timeout(100)
    assert label.text_content().startswith(f"lesion {count} of {count}: ")
    place = page.evaluate("voxlossViewer.panes.map(pane => Array.from(pane.niivue.scene.crosshairPos))")
    assert place[0] == pytest.approx(place[1], abs=1e-4)
    assert not page.locator("#viewer-threshold-label").is_visible()  # no probabilities are kept
    marks = page.evaluate("voxlossViewer.panes.map(pane => pane.niivue.volumes.length)")
    assert marks == [4, 4]
    assert watched.complaints == []


def test_another_loss_is_another_prediction(watched):
    page = watched.page
    watched.open_case("case_002")
    scores = page.locator(".pane .score")
    before = scores.nth(1).text_content()
    page.locator(".pane select").nth(1).select_option("focal")
    page.wait_for_timeout(800)
    assert scores.nth(1).text_content() == scores.nth(0).text_content() != before
    page.get_by_role("button", name="next").click()
    page.wait_for_selector("#viewer:not([data-shown=case_002])")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    assert watched.complaints == []


def test_cases_asked_for_in_a_hurry_end_with_the_last(watched):
    page = watched.page
    page.locator("button.open").first.click()
    for _ in range(3):
        page.get_by_role("button", name="next").click()
    wanted = page.locator("button.open").nth(3).text_content()
    page.wait_for_selector(f"#viewer[data-shown={wanted}]", timeout=60_000)
    page.wait_for_timeout(1000)
    assert page.locator("#viewer-title").text_content() == wanted
    assert page.locator("#viewer-message").text_content() == ""
    drawn = page.evaluate("voxlossViewer.panes.map(pane => [pane.drawn, pane.niivue.volumes.length])")
    assert drawn == [[wanted, 4], [wanted, 4]] and watched.complaints == []


def test_where_there_is_no_webgl_the_viewer_says_so(browser, report):
    watched = Watched(browser)
    watched.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    watched.page.goto((report / "index.html").as_uri())
    watched.page.locator("button.open").first.click()
    watched.page.get_by_text("WebGL 2 is needed").wait_for(timeout=20_000)
    assert watched.page.locator("#viewer-class").is_disabled()
    watched.page.context.close()


@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_at_either_width(browser, report, width, scheme):
    watched = Watched(browser, width=width, color_scheme=scheme)
    watched.page.goto((report / "index.html").as_uri())
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    headline = watched.page.locator("h1").bounding_box()
    assert headline["y"] + headline["height"] < 500  # the verdict is on the first screen
    watched.open_case("case_000")
    stages = [watched.page.locator(".stage").nth(side).bounding_box() for side in (0, 1)]
    bars = [watched.page.locator(".pane .viewer-bar").nth(side).bounding_box() for side in (0, 1)]
    if width == 360:
        assert stages[0]["y"] + stages[0]["height"] <= bars[1]["y"]
    else:
        assert stages[0]["x"] + stages[0]["width"] <= stages[1]["x"]
    watched.page.context.close()


@pytest.mark.parametrize("width", [390, 1024, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_answer_is_on_the_first_screen(browser, report, width, scheme):
    watched = Watched(browser, width=width, color_scheme=scheme)
    page = watched.page
    page.goto((report / "index.html").as_uri())
    assert len(page.locator("h1").text_content().split()) <= 25
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture = page.locator(".first img").bounding_box()
    assert picture["x"] + picture["width"] <= width
    assert page.locator(".first h2").nth(1).text_content().startswith("Difference from the best: ")
    first_class = page.locator(".first thead tr").first.locator("th[scope=colgroup], th[colspan]").first.text_content()
    assert first_class == "tumour"  # the primary class
    if width >= 1024:
        cut_off = """[...document.querySelectorAll(".first .scroll, #verdict .scroll")]
            .filter(box => box.scrollWidth > box.clientWidth + 1).length"""
        assert page.evaluate(cut_off) == 0
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    problems = Axe().run(page).response["violations"]
    assert [(problem["id"], problem["nodes"][0]["html"]) for problem in problems] == []
    assert page.get_by_text("nnUNetv2_train").is_visible()
    assert watched.complaints == []
    page.context.close()


def test_everything_is_reached_by_the_keyboard(watched):
    page, reached = watched.page, set()
    for _ in range(400):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
        if any('class="open"' in text for text in reached) and any("<summary" in text for text in reached):
            break
    assert any("href" in text for text in reached) and any('class="sort"' in text for text in reached)
    page.locator("button.open").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[data-shown]", timeout=60_000)


def test_hostile_names_do_nothing(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "DPI", 40)
    files = StudyFiles(
        losses=("dice", "focal"), cases=4, folds=2, name=HOSTILE.replace("/", ""), dataset=HOSTILE,
        primary_class=HOSTILE,
        classes=("background", "organ", HOSTILE), case_prefix='<img src=x onerror="alert(3)">'.replace("/", ""),
    )  # fmt: skip
    files.states = {("dice", 0, 0): ("failed", HOSTILE)}
    page = build_report(files.write(tmp_path / "study"))
    watched = Watched(browser)
    watched.page.goto(page.as_uri())
    watched.page.locator("button.open").first.click()
    watched.page.wait_for_selector("#viewer[data-shown]", timeout=60_000)
    watched.page.wait_for_timeout(300)
    assert watched.dialogs == [] and watched.complaints == []
    assert watched.page.locator("img[src=x]").count() == 0
    assert watched.page.locator("h1").text_content().count(HOSTILE) == 1
    assert watched.page.locator("#viewer-title").text_content().startswith("<img src=x")
    watched.page.context.close()


def test_the_same_page_over_http(browser, reported_study):
    import threading

    with report_server(reported_study) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        watched = Watched(browser)
        watched.page.goto(server.address)
        watched.open_case("case_001")
        assert watched.colours(0)["grey"] > 2000 and watched.complaints == []
        assert all(
            url.startswith((f"http://127.0.0.1:{server.server_port}/", "data:", "blob:")) for url in watched.requests
        )
        watched.page.context.close()
        server.shutdown()


def test_without_scripts_the_page_still_has_everything(browser, report):
    watched = Watched(browser, java_script_enabled=False)
    watched.page.goto((report / "index.html").as_uri())
    assert watched.page.locator("#scores tbody tr").count() == 4
    assert watched.page.locator("#cases-table tbody tr").count() == 9
    watched.page.context.close()


@pytest.mark.usefixtures("blank_figures")
def test_a_threshold_moves_the_prediction_where_probabilities_are_kept(browser, tmp_path):
    study = StudyFiles(losses=("dice", "focal"), cases=4, folds=2).write(tmp_path / "study")
    case = next(case for case in open_record(study).study.dataset.cases if case.case_id == "case_002")
    reference = np.asarray(nibabel.load(case.label).dataobj) == 2
    for folder in study.glob("runs/dice/fold-*/seed-0"):
        if (folder / "predictions" / "case_002.nii.gz").is_file():
            probability = np.zeros((2, *reference.shape), dtype=np.uint8)
            probability[1] = np.where(reference, 100, 20)
            write_probabilities(folder / "probabilities" / "case_002.nii.gz", probability, case.label)
    watched = Watched(browser)
    page = watched.page
    page.goto(build_report(study).as_uri())
    watched.open_case("case_002")
    score = page.locator(".pane .score")
    page.locator(".pane select").nth(0).select_option("dice")
    page.wait_for_timeout(500)
    plain = score.nth(0).text_content()
    other = score.nth(1).text_content()
    page.locator("#viewer-threshold-on").check()
    assert page.locator("#viewer-threshold-label output").text_content() == "≥ 0.502"
    assert score.nth(0).text_content() == "DSC 0.000"  # every probability is below a half
    page.locator("#viewer-threshold").fill("90")
    page.wait_for_timeout(300)
    assert score.nth(0).text_content() == "DSC 1.000" and score.nth(1).text_content() == other
    page.locator("#viewer-threshold").fill("10")
    page.wait_for_timeout(300)
    expected = 2 * reference.sum() / (reference.sum() + reference.size)
    assert score.nth(0).text_content() == f"DSC {expected:.3f}"
    assert watched.colours(0)["magenta"] > 10_000
    page.locator("#viewer-class").select_option("1")  # of which no probabilities are in the viewer
    assert not page.locator("#viewer-threshold-label").is_visible()
    page.locator("#viewer-class").select_option("2")
    page.locator("#viewer-threshold-on").uncheck()
    assert score.nth(0).text_content() == plain
    assert watched.complaints == []
    page.context.close()
