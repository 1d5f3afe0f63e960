"""The page of a study of images in a real browser: pictures on a canvas, without WebGL."""

import pytest
from browser import Watched, chromium, needs_browser

from test_planar_study import run, write_colours

pytestmark = [needs_browser, pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return run(write_colours(folder / "data"), folder / "study", "--patches.size", "[16,16]").folder / "report"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def watched(browser, report):
    opened = Watched(browser)
    # As in a browser without WebGL.
    opened.page.add_init_script("HTMLCanvasElement.prototype.getContext = (get => function (kind, ...rest) {"
                                "return kind.startsWith('webgl') ? null : get.call(this, kind, ...rest);"
                                "})(HTMLCanvasElement.prototype.getContext);")  # fmt: skip
    opened.page.goto((report / "index.html").as_uri())
    yield opened
    opened.page.context.close()


def test_an_image_opens_with_two_overlays(watched):
    page = watched.page
    watched.open_case("c2")
    assert page.locator("#viewer-title").text_content() == "c2"
    assert page.locator("#viewer-message").text_content() == ""
    reference, prediction = page.locator("#viewer-reference"), page.locator("#viewer-prediction")
    prediction.fill("0")
    reference.fill("1")
    assert watched.colours(0)["green"] > 500
    assert watched.colours(0)["magenta"] == 0
    reference.fill("0")
    prediction.fill("1")
    assert watched.colours(1)["magenta"] > 500
    prediction.fill("0")
    bare = watched.colours(1)
    assert bare["magenta"] == bare["green"] == 0
    assert watched.complaints == []


def test_both_sides_look_at_the_same_place(watched):
    page = watched.page
    watched.open_case("c1")
    view = "voxlossViewer.panes.map(pane => pane.picture.view)"
    page.locator("#viewer-plane").select_option("4")
    box = page.locator(".stage canvas").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.7)
    clicked, other = page.evaluate(view)
    assert clicked == other
    assert clicked["zoom"] == 4
    assert clicked["cross"] == clicked["centre"]
    page.locator(".pane .error").first.click()
    jumped, other = page.evaluate(view)
    assert jumped == other
    assert jumped["cross"] != clicked["cross"]
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 200, steps=4)
    page.mouse.up()
    dragged, other = page.evaluate(view)
    assert dragged == other
    assert dragged["centre"][0] < jumped["centre"][0]  # what was on the left comes into view
    assert dragged["cross"] == jumped["cross"]
    page.get_by_role("button", name="next").click()
    page.wait_for_selector("#viewer:not([data-shown=c1])")
    assert watched.complaints == []


@pytest.mark.parametrize("width", [390, 1024, 1600])
def test_nothing_is_cut_off(browser, report, width):
    opened = Watched(browser, width)
    opened.page.goto((report / "index.html").as_uri())
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.open_case("c0")
    assert opened.page.evaluate("document.getElementById('viewer').scrollWidth") <= width
    assert opened.colours(0)["green"] + opened.colours(0)["magenta"] > 50
    opened.page.context.close()
